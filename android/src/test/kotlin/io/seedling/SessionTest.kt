package io.seedling

import io.seedling.bridge.Listener
import io.seedling.bridge.Outcome
import io.seedling.bridge.Progress
import io.seedling.bridge.Readings
import io.seedling.bridge.Reason
import io.seedling.bridge.SeedlingException
import io.seedling.bridge.Sensors
import io.seedling.bridge.Settings
import io.seedling.bridge.Stage
import io.seedling.bridge.usualRules
import java.io.File
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir

/** Real training on real photos, small enough for a test. */
@Timeout(300, unit = TimeUnit.SECONDS)
class SessionTest {
    @TempDir
    lateinit var folder: Path

    private val settings = Settings(memoryMb = 300u, epochs = 4u, imageSize = 32u, threads = 2u, seed = 5uL)

    private fun at(name: String): File = folder.resolve(name).toFile()

    private fun photos(): Photos {
        val photos = Photos()
        Album.files.forEach { photos.add(it, it.name) }
        return photos
    }

    private fun session(name: String): Session =
        Session.open(at(name), Weights.openOwn(shipped), photos(), settings)

    private fun weights(name: String): ByteArray = File(at(name), "weights.safetensors").readBytes()

    /** What a run leaves that nothing disturbs. */
    private fun undisturbed(): ByteArray {
        assertEquals(Outcome.Done, session("undisturbed").use { it.trainBlocking() })
        return weights("undisturbed")
    }

    @Test
    fun trainsWithProgressVerdictAndSearch() = runBlocking {
        val session = session("run")
        assertNull(session.verdict())
        val heard = session.progress().toList()
        assertTrue(heard.any { it.stage == Stage.TRAINING && it.loss!!.isFinite() }, "$heard")
        val verdict = checkNotNull(session.verdict())
        assertEquals(verdict.accepted, verdict.share > 0)
        assertTrue(verdict.sentence.contains("40 photos"), verdict.sentence)
        session.export(at("out.safetensors"))
        assertArrayEquals(weights("run"), at("out.safetensors").readBytes())
        assertTrue(session.resources().predictedMemoryMb <= 300.0)

        val photos = photos()
        val search = Search.over(photos, Weights.openOwn(at("out.safetensors")))
        val example = Album.files[7]
        val like = search.like(example.name, 3)
        assertEquals(3, like.size)
        assertTrue(like.none { it.name == example.name })
        assertEquals(example.name, search.like(example.readBytes(), 1).single().name)

        session.discard()
        assertNull(session.verdict())
        session.close()
    }

    @Test
    fun pausesResumesAndCancelsWithTheSameBits() = runBlocking {
        val session = session("run")
        var steps = 0
        val paused = session.train { if (it.stage == Stage.TRAINING && ++steps == 1) session.pause() }
        assertEquals(Outcome.Paused, paused)
        // Another object, as another process would have; cancelled in the middle.
        session.close()
        val again = session("run")
        val job = launch(Dispatchers.Default) { again.train() }
        Thread.sleep(700)
        job.cancelAndJoin()
        assertEquals(Outcome.Done, again.train())
        again.close()
        assertArrayEquals(undisturbed(), weights("run"))
    }

    @Test
    fun listenersAndSensorsThatThrowEndNothing() {
        val session = session("run")
        val listener = object : Listener {
            override fun progress(progress: Progress) = error("from progress")

            override fun warning(text: String) = error("from warning")
        }
        val sensors = object : Sensors {
            override fun read(): Readings = error("no sensor")
        }
        val rules = usualRules().apply { chargingOnly = false }
        assertEquals(Outcome.Done, session.trainBlocking(listener, sensors, rules))
        session.close()
        assertArrayEquals(undisturbed(), weights("run"))
    }

    @Test
    fun theGovernorStops() {
        val session = session("run")
        val unplugged = object : Sensors {
            override fun read() = Readings(null, null, null, false, null, null)
        }
        val stopped = session.trainBlocking(sensors = unplugged)
        assertEquals(Outcome.Stopped(Reason.NOT_CHARGING), stopped)
        session.close()
    }

    @Test
    fun badPhotosAreSkippedAndTooFewAreRefused() = runBlocking {
        val photos = photos().add("garbage", byteArrayOf(1, 2, 3)).add(File("/nowhere/x.jpg"))
        assertThrows(SeedlingException.Photos::class.java) { photos.add("garbage", byteArrayOf()) }
        assertThrows(SeedlingException.Photos::class.java) { photos.add("p", 3, 3, ByteArray(35)) }
        photos.add("p", 3, 3, ByteArray(36) { 100 })
        assertEquals(43, photos.count)
        val session = Session.open(at("run"), Weights.openOwn(shipped), photos, settings)
        assertEquals(Outcome.Done, session.train())
        session.close()
        assertEquals(2, Search.over(photos, Weights.openOwn(shipped)).use { it.unreadable })
        val few = Session.open(at("few"), Weights.openOwn(shipped), Photos(), settings)
        assertThrows(SeedlingException::class.java) { few.trainBlocking() }
        few.close()
        assertThrows(SeedlingException.Settings::class.java) {
            Session.open(at("tiny"), Weights.openOwn(shipped), photos(), settings.copy(memoryMb = 10u))
        }
        assertFalse(at("tiny").exists())
        Unit
    }

    @Test
    fun twoAtOnceAndUseAfterClose() = runBlocking {
        val expected = undisturbed()
        listOf("1", "2").map { async(Dispatchers.Default) { session(it).use { s -> s.train() } } }
            .forEach { assertEquals(Outcome.Done, it.await()) }
        assertArrayEquals(expected, weights("1"))
        assertArrayEquals(expected, weights("2"))
        val session = session("3")
        session.close()
        session.close()
        assertThrows(SeedlingException.Closed::class.java) { session.trainBlocking() }
        Unit
    }

    /** Killed with SIGKILL at random moments, again and again, in processes of its own. */
    @Test
    fun killedAnywhereNothingIsLost() {
        val random = java.util.Random(1)
        var kills = 0
        while (true) {
            val java = File(System.getProperty("java.home"), "bin/java").path
            val child = ProcessBuilder(
                java, "-Djna.library.path=${System.getProperty("jna.library.path")}",
                "-cp", System.getProperty("java.class.path"), "io.seedling.ChildKt", at("run").path,
            ).inheritIO().start()
            val left = if (kills < 6) 800L + random.nextInt(1800) else 120_000L
            if (child.waitFor(left, TimeUnit.MILLISECONDS)) {
                assertEquals(0, child.exitValue())
                break
            }
            assertTrue(kills < 6, "the last one was to end by itself")
            child.destroyForcibly().waitFor()
            kills++
        }
        println("killed $kills times")
        assertTrue(kills > 0)
        val session = Session.open(at("same"), Weights.openOwn(shipped), photos(), longer)
        assertEquals(Outcome.Done, session.use { it.trainBlocking() })
        assertArrayEquals(weights("same"), weights("run"))
    }

    companion object {
        val shipped = File("../models/mobilenet_v3_small.safetensors").canonicalFile

        val longer = Settings(memoryMb = 300u, epochs = 20u, imageSize = 64u, threads = 2u, seed = 5uL)
    }
}
