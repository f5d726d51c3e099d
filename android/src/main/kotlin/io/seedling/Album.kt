package io.seedling

import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.io.FileOutputStream
import java.nio.file.Files
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardCopyOption.REPLACE_EXISTING

/**
 * Which photos a run is over, remembered in [storage] from its first slice to its last. Between two slices a
 * photo may be deleted or its grant taken back: then it is skipped, and the run goes on with the others,
 * which a list that had changed would not let it.
 */
class Album(storage: File) {
    private val file = File(storage, "album.names")

    /** The names it was begun with; those of [current] where it has not begun. */
    fun names(current: () -> List<String>): List<String> {
        if (file.exists()) {
            return DataInputStream(file.inputStream().buffered()).use { input ->
                List(input.readInt()) { input.readUTF() }
            }
        }
        return current().also(::remember)
    }

    /**
     * Its photos, in their order. [add] hands one over by its name, and returns whether it could; one that
     * is gone keeps its place.
     */
    fun photos(current: () -> List<String>, add: (Photos, String) -> Boolean): Photos {
        val photos = Photos()
        for (name in names(current)) {
            if (!add(photos, name)) photos.add(File("/photo/that/is/gone"), name)
        }
        return photos
    }

    /** Forgets it: the next run is over the photos there are then. */
    fun forget() {
        file.delete()
    }

    private fun remember(names: List<String>) {
        file.parentFile?.mkdirs()
        val part = File(file.path + ".part")
        FileOutputStream(part).use { output ->
            DataOutputStream(output.buffered()).apply {
                writeInt(names.size)
                names.forEach(::writeUTF)
                flush()
            }
            output.fd.sync()
        }
        Files.move(part.toPath(), file.toPath(), ATOMIC_MOVE, REPLACE_EXISTING)
    }
}
