package io.seedling.sample

import android.content.Context
import io.seedling.Album
import io.seedling.PhotoLibrary
import io.seedling.Photos
import io.seedling.Session
import io.seedling.Weights
import java.io.File

/** Where the sample keeps what it keeps, and how its session is opened: the same from the screen and at night. */
class Store(private val context: Context) {
    val folder = File(context.filesDir, "seedling").apply { mkdirs() }
    val adapted = File(folder, "adapted.safetensors")
    val library = PhotoLibrary(context)
    private val picked = File(folder, "picked.txt")

    /** The weights that came with the app, vouched for. A file of its own: an asset has no path. */
    fun base(): Weights {
        val keys = listOf(context.assets.open("base.key.pub").bufferedReader().use { it.readText() }.trim())
        for (name in listOf("base.safetensors", "base.safetensors.manifest")) {
            context.assets.open(name).use { from -> File(folder, name).outputStream().use(from::copyTo) }
        }
        return Weights.open(File(folder, "base.safetensors"), keys, folder)
    }

    /** What the photo picker has handed over, or the newest that the app may see. */
    fun names(): List<String> =
        if (picked.exists()) picked.readLines() else library.names()

    fun pick(names: List<String>) = picked.writeText(names.joinToString("\n"))

    /** The photos of the run: those it was begun with. */
    fun photos(): Photos = Album(folder).photos(::names, library::add)

    fun open(): Session = Session.open(File(folder, "session"), base(), photos())

    /** The weights that the run has ended with. */
    fun result(): Weights = Weights.openOwn(File(folder, "session/weights.safetensors"))

    /** Everything that is stored. */
    fun stored(): List<File> = folder.walkTopDown().filter(File::isFile).toList()

    fun delete() {
        folder.deleteRecursively()
        folder.mkdirs()
    }
}
