package dalvik.system;

/** Stands where Android's own asks its virtual machine. */
public final class VMRuntime {
    private static final VMRuntime RUNTIME = new VMRuntime();

    private VMRuntime() {}

    public static VMRuntime getRuntime() {
        return RUNTIME;
    }

    public boolean is64Bit() {
        return true;
    }

    public static boolean is64BitAbi(String abi) {
        return abi.contains("64");
    }
}
