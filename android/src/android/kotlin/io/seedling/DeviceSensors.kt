package io.seedling

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import java.io.File

/**
 * The sensors of a phone. Memory is what the process has come to hold since this was made: what the app
 * held before is its own affair.
 */
class DeviceSensors(context: Context) : Sensors {
    private val app = context.applicationContext ?: context
    private val power = app.getSystemService(Context.POWER_SERVICE) as PowerManager?
    private val before = residentMb()

    override fun read(): Readings {
        val battery = battery()
        return Readings(
            seconds = System.nanoTime() / 1e9,
            heat = heat(),
            battery = battery?.let(::charge),
            charging = battery?.let(::isPlugged),
            lowPower = power?.isPowerSaveMode,
            memoryMb = residentMb()?.let { now -> before?.let { (now - it).coerceAtLeast(0.0) } },
        )
    }

    /** The last broadcast about the battery, which stays. */
    private fun battery(): Intent? = app.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))

    /** How hot it is expected to be in ten seconds; before Android 11 by the status that it reports. */
    private fun heat(): Double? {
        val power = power ?: return null
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
            // Not a number where the device cannot tell, or is asked too often.
            val headroom = power.getThermalHeadroom(FORECAST_SECONDS).toDouble()
            if (!headroom.isNaN()) return headroom
        }
        return if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) heatOf(power.currentThermalStatus) else null
    }

    internal companion object {
        const val FORECAST_SECONDS = 10

        fun heatOf(status: Int): Double? = when (status) {
            PowerManager.THERMAL_STATUS_NONE -> 0.4
            PowerManager.THERMAL_STATUS_LIGHT -> 0.7
            PowerManager.THERMAL_STATUS_MODERATE -> 0.9
            else -> if (status >= PowerManager.THERMAL_STATUS_SEVERE) 1.0 else null
        }

        fun charge(battery: Intent): Double? {
            val level = battery.getIntExtra(BatteryManager.EXTRA_LEVEL, -1)
            val scale = battery.getIntExtra(BatteryManager.EXTRA_SCALE, -1)
            return if (level >= 0 && scale > 0) level.toDouble() / scale else null
        }

        fun isPlugged(battery: Intent): Boolean? =
            battery.getIntExtra(BatteryManager.EXTRA_PLUGGED, -1).takeIf { it >= 0 }?.let { it > 0 }

        /** Megabytes that the process holds, as the kernel counts them. */
        fun residentMb(): Double? = try {
            File("/proc/self/status").useLines { lines ->
                lines.firstOrNull { it.startsWith("VmRSS:") }
                    ?.filter(Char::isDigit)?.toDoubleOrNull()?.div(1024)
            }
        } catch (_: java.io.IOException) {
            null
        }
    }
}
