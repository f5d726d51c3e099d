package io.seedling

import io.seedling.bridge.Match
import java.io.Closeable
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/** Photos by example, as some weights see them. */
class Search private constructor(private val inner: io.seedling.bridge.Search) : Closeable {
    /** Photos that could not be read, and are not among the matches. */
    val unreadable: Int
        get() = inner.unreadable().toInt()

    /** The [count] photos most like the one of that name, nearest first. */
    fun like(name: String, count: Int): List<Match> = inner.like(name, count.toUInt())

    /** The same for a picture that need not be among the photos. */
    suspend fun like(encoded: ByteArray, count: Int): List<Match> =
        withContext(Dispatchers.IO) { inner.likeEncoded(encoded, count.toUInt()) }

    override fun close() = inner.destroy()

    companion object {
        /** Looks at every photo once. */
        suspend fun over(photos: Photos, weights: Weights, threads: Int = 0): Search =
            withContext(Dispatchers.IO) {
                Search(io.seedling.bridge.Search(weights.inner, photos.inner, threads.toUInt()))
            }
    }
}
