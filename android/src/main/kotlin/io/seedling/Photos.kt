package io.seedling

import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer

/**
 * A list of photos that only grows. A name tells one from the others: a session that continues after
 * the app died asks for the same names in the same order.
 */
class Photos : Closeable {
    internal val inner = io.seedling.bridge.Photos()

    /** How many there are. */
    val count: Int
        get() = inner.count()

    /** A file that is read whenever it is needed; one that is no photo, or vanishes, is skipped. */
    @JvmOverloads
    fun add(file: File, name: String = file.path): Photos = apply { inner.addFile(name, file.path) }

    /** A whole encoded picture, kept in memory. */
    fun add(name: String, encoded: ByteArray): Photos = apply { inner.addEncoded(name, encoded) }

    /**
     * Pixels R, G, B, A that the platform has decoded, upright, in a direct buffer: they are read where
     * they lie, and kept reduced to 320 pixels.
     */
    fun add(name: String, width: Int, height: Int, rgba: ByteBuffer): Photos =
        apply { inner.addPixels(name, width, height, rgba) }

    /** The same from an array, which is copied once. */
    fun add(name: String, width: Int, height: Int, rgba: ByteArray): Photos =
        add(name, width, height, ByteBuffer.allocateDirect(rgba.size).put(rgba).apply { flip() })

    /** Says what class a photo is of, for [evaluate]. Training never reads it. */
    fun label(name: String, className: String): Photos = apply { inner.label(name, className) }

    /** Lets go of the list. A session that has it continues. */
    override fun close() = inner.destroy()
}
