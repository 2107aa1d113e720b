import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;

/** Says "ready PID", and does a step of work for each line: some garbage, and a reply. */
public final class Steps {
    private static final byte[][] KEPT = new byte[16][];

    private Steps() {
    }

    public static void main(String[] arguments) throws IOException {
        System.out.println("ready " + ProcessHandle.current().pid());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (int step = 0; lines.readLine() != null; step++) {
            KEPT[step % KEPT.length] = new byte[64 * 1024];
            System.out.println("done " + step);
        }
    }
}
