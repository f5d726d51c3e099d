package android.util;

/** Stands where Android's own writes to the system's log: to this process's output. */
public final class Log {
    private Log() {}

    private static int line(String level, String tag, String text, Throwable thrown) {
        System.out.println(level + "/" + tag + ": " + text + (thrown == null ? "" : " " + thrown));
        return 0;
    }

    public static boolean isLoggable(String tag, int level) {
        return false;
    }

    public static int v(String tag, String text) {
        return line("V", tag, text, null);
    }

    public static int d(String tag, String text) {
        return line("D", tag, text, null);
    }

    public static int i(String tag, String text) {
        return line("I", tag, text, null);
    }

    public static int w(String tag, String text) {
        return line("W", tag, text, null);
    }

    public static int w(String tag, String text, Throwable thrown) {
        return line("W", tag, text, thrown);
    }

    public static int e(String tag, String text) {
        return line("E", tag, text, null);
    }

    public static int e(String tag, String text, Throwable thrown) {
        return line("E", tag, text, thrown);
    }

    public static int wtf(String tag, String text) {
        return line("F", tag, text, null);
    }

    public static int wtf(String tag, String text, Throwable thrown) {
        return line("F", tag, text, thrown);
    }
}
