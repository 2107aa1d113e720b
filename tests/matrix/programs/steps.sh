# steps.sh - says "ready PID", and does a step of work for each line: some text, and a reply.
echo "ready $$"
step=0
while read -r line; do
    kept=$(printf '%1000s' "$line")
    echo "done $step ${#kept}"
    step=$((step + 1))
done
