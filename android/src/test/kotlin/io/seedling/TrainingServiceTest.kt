package io.seedling

import android.app.job.JobParameters
import android.os.PowerManager
import java.io.File
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir

/** The life of a service that trains, with Android's own classes and without a phone. */
@Timeout(120, unit = TimeUnit.SECONDS)
class TrainingServiceTest {
    @TempDir
    lateinit var folder: Path

    private fun at(name: String): File = folder.resolve(name).toFile()

    private fun undisturbed(): ByteArray = NightService(Phone(at("undisturbed"))).run {
        assertFalse(slice())
        weights()
    }

    @Test
    fun isAskedForOnlyWhileNobodyIsDisturbed() {
        val request = NightService.request()
        assertTrue(request.isRequireCharging && request.isRequireDeviceIdle)
        assertTrue(request.isRequireBatteryNotLow && request.isRequireStorageNotLow)
        assertNull(request.requiredNetwork)
    }

    @Test
    fun stoppedByTheSystemItGoesOnInAnotherProcess() {
        val phone = Phone(at("run"))
        val service = NightService(phone)
        assertTrue(service.onStartJob(service.parameters))
        Thread.sleep(1500)
        service.parameters.setStopReason(JobParameters.STOP_REASON_CONSTRAINT_CHARGING, 0, "unplugged")
        assertTrue(service.onStopJob(service.parameters))
        // The system destroys it at once; what was trained is saved all the same.
        service.onDestroy()
        val entry = service.stopped()
        assertEquals("paused", entry.ended)
        assertEquals("stopped by the system: it is not being charged", entry.detail)
        assertFalse(service.again.isCompleted)

        // Processes that are gone before anybody could tell them.
        repeat(3) { killedAfter(200L + 400 * it, told = 1 + it) }

        val last = NightService(Phone(at("run")))
        assertFalse(last.slice())
        assertEquals(listOf("paused", "killed", "killed", "killed", "done"), last.entries().map { it.ended })
        assertArrayEquals(undisturbed(), last.weights())
    }

    /** Kills a process so long after it has begun a slice, having [told] in the log of those before. */
    private fun killedAfter(milliseconds: Long, told: Int) {
        val java = File(System.getProperty("java.home"), "bin/java").path
        val child = ProcessBuilder(
            java, "-Djna.library.path=${System.getProperty("jna.library.path")}",
            "-cp", System.getProperty("java.class.path"), "io.seedling.PhoneKt", at("run").path,
        ).inheritIO().start()
        val storage = File(at("run"), "seedling")
        while (child.isAlive && (SliceLog(storage).entries().size < told || !File(storage, "slice.begun").exists())) {
            Thread.sleep(10)
        }
        assertFalse(child.waitFor(milliseconds, TimeUnit.MILLISECONDS))
        child.destroyForcibly().waitFor()
    }

    @Test
    fun photosThatAreDeletedOrTakenBackBetweenSlicesAreSkipped() = runBlocking {
        val phone = Phone(at("run"))
        val service = NightService(phone)
        service.onStartJob(service.parameters)
        Thread.sleep(1200)
        service.onStopJob(service.parameters)
        assertEquals("paused", service.stopped().ended)
        // Two are deleted, others come, and all but those that someone chooses are taken back.
        phone.photos.keys.take(2).forEach(phone.photos::remove)
        phone.photos[500] = TestPhotos.files[0]
        phone.granted.clear()
        phone.granted += android.Manifest.permission.READ_MEDIA_VISUAL_USER_SELECTED
        assertEquals(PhotoLibrary.Access.CHOSEN, phone.library.access)
        val last = NightService(phone)
        assertFalse(last.slice())
        assertEquals("done", last.entries().last().ended)
    }

    @Test
    fun withoutPermissionNothingIsBegun() {
        val phone = Phone(at("run")).apply { granted.clear() }
        assertEquals(emptyList<String>(), phone.library.names())
        val service = NightService(phone)
        assertFalse(service.slice())
        val entry = service.entries().single()
        assertEquals("failed", entry.ended)
        assertTrue(entry.detail.contains("photo"), entry.detail)
    }

    @Test
    fun withoutRoomNothingIsBegunAndItIsTriedAgain() {
        val service = NightService(Phone(at("run")), leastFree = Long.MAX_VALUE)
        assertTrue(service.slice())
        assertEquals("failed", service.entries().single().ended)
        assertTrue(service.entries().single().detail.contains("are free"))
        assertFalse(File(at("run"), "seedling/session").exists())
    }

    @Test
    fun theGovernorReadsTheBattery() {
        val phone = Phone(at("run")).apply { battery = Phone.battery(level = 40, plugged = 0) }
        val seen = DeviceSensors(phone).read()
        assertEquals(0.2, seen.battery)
        assertEquals(false, seen.charging)
        assertTrue(seen.memoryMb!! in 0.0..500.0, "$seen")
        val service = NightService(phone, sensors = DeviceSensors(phone))
        assertTrue(service.slice())
        assertEquals("battery", service.entries().single().ended)
        phone.battery = null
        assertNull(DeviceSensors(phone).read().charging)
        val heats = listOf(PowerManager.THERMAL_STATUS_NONE, PowerManager.THERMAL_STATUS_LIGHT, PowerManager.THERMAL_STATUS_CRITICAL, -1)
        assertEquals(listOf(0.4, 0.7, 1.0, null), heats.map(DeviceSensors::heatOf))
    }

    @Test
    fun theNewestPhotosAreNamedFirst() {
        val phone = Phone(at("run"))
        val names = phone.library.names(most = 3)
        assertEquals(listOf(139, 138, 137).map { "content://media/external/images/media/$it" }, names)
        phone.granted.clear()
        assertEquals(PhotoLibrary.Access.NONE, phone.library.access)
    }
}
