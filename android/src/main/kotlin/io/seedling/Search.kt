package io.seedling

import java.io.Closeable
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/** A photo that is like another, and how far it is. */
typealias Match = io.seedling.bridge.Match

/** Photos by example, as some weights see them. */
class Search private constructor(private val inner: io.seedling.bridge.Search) : Closeable {
    /** Photos that could not be read, and are not among the matches. */
    val unreadable: Int
        get() = inner.unreadable()

    /** The [count] photos most like the one of that name, nearest first. */
    fun like(name: String, count: Int): List<Match> = inner.like(name, count)

    /** The same for a picture that need not be among the photos. */
    suspend fun like(encoded: ByteArray, count: Int): List<Match> =
        withContext(Dispatchers.IO) { likeBlocking(encoded, count) }

    /** The same for Java, on the calling thread. */
    fun likeBlocking(encoded: ByteArray, count: Int): List<Match> = inner.likeEncoded(encoded, count)

    /** What the weights see in every photo, by its name. */
    fun embeddings(): Map<String, FloatArray> =
        inner.embeddings().associate { it.name to it.values.toFloatArray() }

    override fun close() = inner.destroy()

    companion object {
        /** Looks at every photo once. Cancelling the coroutine ends it within a few photos. */
        suspend fun over(
            photos: Photos,
            weights: Weights,
            threads: Int = 0,
            onProgress: (Progress) -> Unit = {},
        ): Search = stoppable { stop ->
            Search(io.seedling.bridge.Search(weights.inner, photos.inner, threads, heard(onProgress), stop))
        }

        /** The same for Java, on the calling thread. */
        @JvmStatic
        @JvmOverloads
        fun overBlocking(photos: Photos, weights: Weights, threads: Int = 0): Search =
            Search(io.seedling.bridge.Search(weights.inner, photos.inner, threads, null, null))
    }
}
