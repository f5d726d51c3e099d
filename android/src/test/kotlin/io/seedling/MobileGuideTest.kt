package io.seedling

import io.seedling.mobile.adapt
import java.io.File
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir

/** The function that docs/mobile.md begins with. */
class MobileGuideTest {
    @Test
    @Timeout(300, unit = TimeUnit.SECONDS)
    fun itsFunctionAdapts(@TempDir home: Path) = runBlocking {
        val base = home.resolve("base.safetensors").toFile()
        SessionTest.shipped.copyTo(base)
        val key = home.resolve("release.key").toFile()
        val seedling = File(System.getProperty("jna.library.path"), "seedling").path
        call(seedling, "keygen", key.path)
        call(seedling, "sign", base.path, "--key", key.path, "--version", "3")
        val keys = listOf(File("${key.path}.pub").readText().trim())
        val weights = checkNotNull(adapt(TestPhotos.files, base, keys, home.toFile()))
        assertEquals("mobilenet_v3_small", Weights.openOwn(weights).use { it.arch })
    }

    private fun call(vararg words: String) {
        assertEquals(0, ProcessBuilder(*words).inheritIO().start().waitFor())
    }
}
