package io.seedling

import java.io.File
import java.io.IOException

/**
 * What became of the slices that a run was trained in, in [storage]: one line each, the latest few hundred.
 * For a developer who asks why nothing is learnt at night.
 */
class SliceLog(storage: File) {
    private val file = File(storage, "slices.log")
    private val begun = File(storage, "slice.begun")

    /** One slice. */
    data class Entry(
        /** When it ended, in seconds since 1970. */
        val at: Long,
        /** `done`, `paused`, `failed`, `killed`, or the governor's reason to stop. */
        val ended: String,
        /** What there is to say about it. */
        val detail: String,
    )

    /** All entries, the oldest first. Lines that a crash has cut short are left out. */
    fun entries(): List<Entry> {
        val lines = try {
            file.readLines()
        } catch (_: IOException) {
            return emptyList()
        }
        return lines.mapNotNull { line ->
            val words = line.split('\t', limit = 3)
            words[0].toLongOrNull()?.takeIf { words.size == 3 }?.let { Entry(it, words[1], words[2]) }
        }
    }

    /** A slice begins. One before it that has not ended was killed with its process. */
    internal fun begin() {
        if (begun.exists()) add("killed", "the process ended without a word")
        try {
            begun.createNewFile()
        } catch (_: IOException) {
            // As below.
        }
    }

    internal fun add(ended: String, detail: String) {
        begun.delete()
        val entry = Entry(System.currentTimeMillis() / 1000, ended, detail.replace(Regex("[\t\r\n]+"), " "))
        try {
            val part = File(file.path + ".part")
            part.writeText((entries() + entry).takeLast(KEPT).joinToString("") { "${it.at}\t${it.ended}\t${it.detail}\n" })
            part.renameTo(file)
        } catch (_: IOException) {
            // A log that can't be written is no reason to lose a night.
        }
    }

    private companion object {
        const val KEPT = 500
    }
}
