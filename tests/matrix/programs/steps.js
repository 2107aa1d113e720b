// steps.js - says "ready PID", and does a step of work for each line: some garbage, and a reply.
const kept = [];
let step = 0;

console.log("ready", process.pid);
require("readline").createInterface({ input: process.stdin }).on("line", () => {
  kept[step % 16] = new Array(8192).fill(step);
  console.log("done", step++);
});
