/*
 * Loop.java - a control loop in Java: 1 kHz, look-ups in a table, and garbage in each cycle.
 *
 * Why: it is an ordinary Java program, compiler threads, collector and all. It knows nothing of
 * memory locking. It says `ready PID` once its methods are compiled, works until its standard input
 * ends, then says how it went.
 *
 *   javac -d . Loop.java && java Loop
 */
import java.io.IOException;
import java.util.concurrent.locks.LockSupport;

final class Loop implements Runnable {
    private static final long PERIOD_NS = 1_000_000;
    private static final int WARM_UP = 20_000;  // calls until the compilers have had their turn
    private static final int LOG = 64;

    private final double[] table = new double[512 * 1024];
    private final String[] log = new String[LOG];
    private volatile boolean stop;
    private long cycles, late, worstNs;
    private int noise = 1;

    Loop() {
        for (int i = 0; i < table.length; i++) {
            table[i] = Math.sin(2 * Math.PI * i / table.length);
        }
    }

    private double measure() {
        noise = noise * 1664525 + 1013904223;
        return (noise >>> 1) / (double) (1L << 31);
    }

    /** One cycle: eight look-ups, and a line of a log that becomes garbage 64 cycles later. */
    private void control() {
        double command = 0;
        for (int joint = 0; joint < 8; joint++) {
            command += table[(int) (measure() * table.length)];
        }
        log[(int) (cycles % LOG)] = "cycle " + cycles + " command " + command;
    }

    @Override
    public void run() {
        long wake = System.nanoTime();
        while (!stop) {
            wake += PERIOD_NS;
            for (long left = wake - System.nanoTime(); left > 0; left = wake - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
            long began = System.nanoTime();
            control();
            long took = System.nanoTime() - began;
            worstNs = Math.max(worstNs, took);
            late += took > PERIOD_NS ? 1 : 0;
            cycles++;
        }
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Loop loop = new Loop();
        for (int call = 0; call < WARM_UP; call++) {
            loop.control();
            loop.cycles++;
        }
        loop.cycles = 0;
        Thread thread = new Thread(loop, "control");
        thread.start();
        System.out.println("ready " + ProcessHandle.current().pid());
        while (System.in.read() >= 0) {
            continue;
        }
        loop.stop = true;
        thread.join();
        System.out.println(
                "cycles " + loop.cycles + " late " + loop.late + " worst_ns " + loop.worstNs);
    }
}
