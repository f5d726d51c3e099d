package io.seedling

import java.io.Closeable
import java.io.File

/** Weights to begin with, or to search by. */
class Weights private constructor(internal val inner: io.seedling.bridge.Weights) : Closeable {
    /** The network they are for. */
    val arch: String
        get() = inner.arch()

    /** Which release they are; 0 for weights of the app's own. */
    val version: Long
        get() = inner.version()

    override fun close() = inner.destroy()

    companion object {
        /**
         * Weights that one of [keys] has signed, in the manifest beside them. What it takes back is
         * remembered in [storage].
         */
        @JvmStatic
        fun open(file: File, keys: List<String>, storage: File): Weights =
            Weights(io.seedling.bridge.Weights.open(file.path, keys, storage.path))

        /** Weights that a [Session] of this app has exported. */
        @JvmStatic
        fun openOwn(file: File): Weights = Weights(io.seedling.bridge.Weights.openOwn(file.path))
    }
}
