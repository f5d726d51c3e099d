package x
import io.seedling.Photos
import io.seedling.Session
import io.seedling.Weights
import java.io.File

/**
 * Adapts the network of [base] to the photos at [paths], in the folder [home]. Returns its weights
 * once they are there; null where training was paused before, to be called again then.
 */
suspend fun adapt(paths: List<File>, base: File, keys: List<String>, home: File): File? {
    val photos = Photos()
    paths.forEach { photos.add(it) }
    return Weights.open(base, keys, storage = home).use { weights ->
        Session.open(File(home, "session"), weights, photos).use { session ->
            session.progress().collect { println("${it.stage}: ${it.done} of ${it.total}") }
            session.verdict()?.let { verdict ->
                println(verdict.sentence) // "The adapted weights are kept: they find ..."
                File(home, "weights.safetensors").also { session.export(it) }
            }
        }
    }
}
