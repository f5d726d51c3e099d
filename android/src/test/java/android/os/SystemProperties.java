package android.os;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** Stands where Android's own asks the system: what a test says the device is. */
public final class SystemProperties {
    public static final Map<String, String> VALUES = new ConcurrentHashMap<>(Map.of(
            "ro.build.version.sdk", "35", "ro.build.version.all_codenames", "REL", "ro.build.version.codename", "REL",
            "ro.build.version.known_codenames", "REL", "ro.product.cpu.abilist", "x86_64", "ro.product.cpu.abilist64", "x86_64"));

    private SystemProperties() {}

    public static String get(String key) {
        return get(key, "");
    }

    public static String get(String key, String otherwise) {
        return VALUES.getOrDefault(key, otherwise);
    }

    public static int getInt(String key, int otherwise) {
        String value = VALUES.get(key);
        return value == null ? otherwise : Integer.parseInt(value);
    }

    public static long getLong(String key, long otherwise) {
        return getInt(key, (int) otherwise);
    }

    public static boolean getBoolean(String key, boolean otherwise) {
        String value = VALUES.get(key);
        return value == null ? otherwise : Boolean.parseBoolean(value);
    }

    public static void addChangeCallback(Runnable callback) {}
}
