package io.seedling

import io.seedling.bridge.Decision
import io.seedling.bridge.Outcome
import io.seedling.bridge.SeedlingException
import java.io.File
import java.nio.ByteBuffer
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.CompletableDeferred
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

    private val settings = Settings(memoryMb = 300, epochs = 4, imageSize = 32, threads = 2, seed = 5)

    private fun at(name: String): File = folder.resolve(name).toFile()

    private fun photos(): Photos {
        val photos = Photos()
        TestPhotos.files.forEach { photos.add(it, it.name) }
        return photos
    }

    private fun session(name: String): Session =
        Session.open(at(name), Weights.openOwn(shipped), photos(), settings)

    private fun weights(name: String): ByteArray = File(at(name), "weights.safetensors").readBytes()

    /** What a run leaves that nothing disturbs; computed once for all tests. */
    private fun undisturbed(): ByteArray = once ?: run {
        assertEquals(Outcome.Done, session("undisturbed").use { it.trainBlocking() })
        weights("undisturbed").also { once = it }
    }

    @Test
    fun trainsWithProgressVerdictAndSearch() = runBlocking {
        val session = session("run")
        assertNull(session.verdict())
        val heard = session.progress().toList()
        assertTrue(heard.any { it.stage == Stage.TRAINING && it.loss!!.isFinite() }, "$heard")
        val verdict = checkNotNull(session.verdict())
        assertEquals(verdict.accepted, verdict.interpolation > 0)
        assertTrue(verdict.sentence.contains("40 photos"), verdict.sentence)
        session.export(at("out.safetensors"))
        assertArrayEquals(weights("run"), at("out.safetensors").readBytes())
        assertTrue(session.resources().predictedMemoryMb <= 300.0)

        val photos = photos()
        val search = Search.over(photos, Weights.openOwn(at("out.safetensors")))
        val example = TestPhotos.files[7]
        val like = search.like(example.name, 3)
        assertEquals(3, like.size)
        assertTrue(like.none { it.name == example.name })
        assertEquals(example.name, search.like(example.readBytes(), 1).single().name)

        // Only what is the session's own goes.
        val other = File(at("run"), "of-the-app.txt").apply { writeText("stays") }
        session.discard()
        assertNull(session.verdict())
        assertEquals(listOf(other), at("run").listFiles()!!.toList())
        session.close()
    }

    @Test
    fun theClosedFormAndItsIndexAreMadeInSlices() = runBlocking {
        val closed = Settings(memoryMb = 300, epochs = 0, imageSize = 32, threads = 2)
        // One part of the work a life.
        var lives = 0
        do {
            val more = Session.open(at("closed"), Weights.openOwn(shipped), photos(), closed).use { it.step() }
            lives += 1
        } while (more && lives < 50)
        assertTrue(lives > 1)
        val session = Session.open(at("closed"), Weights.openOwn(shipped), photos(), closed)
        val verdict = checkNotNull(session.verdict())
        assertTrue(verdict.closedForm && !verdict.accepted, verdict.sentence)
        session.export(at("closed.safetensors"))
        session.close()

        val weights = Weights.openOwn(at("closed.safetensors"))
        val store = at("album.index")
        val all = Search.over(photos(), weights, store = store).use { it.embeddings() }
        assertEquals(40, all.size)
        // Nothing is processed twice, and a photo that is gone is not found any more.
        val fewer = Photos().apply { TestPhotos.files.drop(1).forEach { add(it, it.name) } }
        val heard = mutableListOf<Progress>()
        val search = Search.over(photos(), weights, store = store) { heard += it }
        search.refresh(fewer) { heard += it }
        assertTrue(heard.isEmpty())
        assertEquals(39, search.embeddings().size)
        assertTrue(search.like(TestPhotos.files[0].name, 3).isEmpty())
        search.refreshBlocking(photos())
        assertEquals(40, search.embeddings().size)
        val both = Search.overBlocking(photos(), weights, ttaViews = 2, beside = Weights.openOwn(shipped))
        assertEquals(2048, both.embeddings().values.first().size)
        assertThrows(SeedlingException.Settings::class.java) { Search.overBlocking(photos(), weights, ttaViews = 3) }
        Unit
    }

    @Test
    fun evaluatesWithAndWithoutClasses() = runBlocking {
        val photos = photos()
        val weights = Weights.openOwn(shipped)
        val heard = mutableListOf<Progress>()
        val without = evaluate(photos, weights) { heard += it }
        assertEquals(40, without.photos)
        assertEquals(listOf(40L, 40L), heard.last().let { listOf(it.done, it.total) })
        assertNull(without.bestNn)
        assertTrue(without.instanceDiscrimination!! > 0 && without.uniformity!! < 0)
        TestPhotos.files.forEachIndexed { index, file -> photos.label(file.name, "class ${index % 2}") }
        val with = evaluateBlocking(photos, weights)
        assertTrue(with.bestNn!! in 0.0..100.0)
        for (figure in listOf(with.precisionAt10, with.meanAveragePrecision, with.oneShot, with.fiveShot, with.purity)) {
            assertTrue(figure!! in 0.0..100.0)
        }
        assertEquals(without.uniformity, with.uniformity)
        assertThrows(SeedlingException.Photos::class.java) { photos.label("none", "className") }
        Unit
    }

    @Test
    fun searchesAndEvaluationsAreCancelled() = runBlocking {
        val weights = Weights.openOwn(shipped)
        val photos = photos()
        val works = listOf<suspend (() -> Unit) -> Unit>(
            { progressed -> Search.over(photos, weights) { progressed() } },
            { progressed -> evaluate(photos, weights) { progressed() } },
        )
        for (work in works) {
            val began = CompletableDeferred<Unit>()
            val job = launch(Dispatchers.Default) { work { began.complete(Unit) } }
            began.await()
            job.cancelAndJoin()
            assertTrue(job.isCancelled)
        }
    }

    @Test
    fun anAppCanHaveItsOwnLoop() = runBlocking {
        val session = session("run")
        var parts = 0
        while (session.step()) {
            // Left in the middle, as by a process that ends.
            if (++parts == 2) break
        }
        val resources = session.resources()
        assertTrue(resources.storedBytes > 0 && resources.seconds > 0)
        assertTrue(resources.predictedMemoryMb in 50.0..300.0, "$resources")
        session.close()
        session("run").use { while (it.step()) parts++ }
        assertTrue(parts > 4, "$parts")
        assertArrayEquals(undisturbed(), weights("run"))
    }

    @Test
    fun pixelsAsLargeAsAPhonesAreTaken() {
        val photos = Photos()
        val pixels = ByteBuffer.allocateDirect(4032 * 3024 * 4)
        val start = System.nanoTime()
        photos.add("camera", 4032, 3024, pixels)
        println("12 megapixels are kept after ${(System.nanoTime() - start) / 1_000_000} ms")
        assertEquals(1, photos.count)
        assertThrows(SeedlingException.Photos::class.java) { photos.add("cut", 4032, 3025, pixels) }
        assertThrows(SeedlingException.Photos::class.java) { photos.add("none", -1, 3025, pixels) }
        // A buffer that is not in native memory can't be read where it lies.
        assertThrows(IllegalArgumentException::class.java) { photos.add("heap", 1, 1, ByteBuffer.allocate(4)) }
    }

    @Test
    fun pausesResumesAndCancelsWithTheSameBits() = runBlocking {
        val session = session("run")
        var steps = 0
        val paused = session.train { if (it.stage == Stage.TRAINING && ++steps == 1) session.pause() }
        assertEquals(Outcome.Paused, paused)
        // Another object, as another process would have; canceled in the middle.
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
        val seen = Readings(null, 0.3, 0.8, true, false, null)
        Governor().use { governor ->
            assertEquals(Decision.Run, governor.decide(seen))
            assertEquals(Decision.Stop(Reason.HEAT), governor.decide(seen.copy(heat = 0.99)))
            assertEquals(Decision.Stop(Reason.HEAT), governor.decide(seen))
        }
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
            Session.open(at("tiny"), Weights.openOwn(shipped), photos(), settings.copy(memoryMb = 10))
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
        private var once: ByteArray? = null

        val shipped = File("../models/mobilenet_v3_small.safetensors").canonicalFile

        val longer = Settings(memoryMb = 300, epochs = 20, imageSize = 64, threads = 2, seed = 5)
    }
}
