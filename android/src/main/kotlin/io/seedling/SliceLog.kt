package io.seedling

import java.io.File

/**
 * What became of the slices that a run was trained in, in [storage]: one entry each, the latest few hundred.
 * For a developer who asks why nothing is learned at night.
 */
class SliceLog(storage: File) {
    private val slices = io.seedling.bridge.Slices(storage.path)

    /** All entries, the oldest first. */
    fun entries(): List<SliceEntry> = slices.entries()
}

/** One slice: when it ended, how (`done`, `paused`, `failed`, `killed`, or the governor's reason), and more. */
typealias SliceEntry = io.seedling.bridge.SliceEntry
