package io.seedling

import io.seedling.bridge.Listener
import io.seedling.bridge.SearchSettings
import io.seedling.bridge.Stop
import java.io.Closeable
import java.io.File
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

    /** What is compared, of every photo, by its name. */
    fun embeddings(): Map<String, FloatArray> =
        inner.embeddings().associate { it.name to it.values.toFloatArray() }

    /**
     * Searches [photos] from now on: extracts features of those that are new, and forgets those that are gone.
     * A photo is known by its name. Canceling the coroutine ends it within a few photos.
     */
    suspend fun refresh(photos: Photos, onProgress: (Progress) -> Unit = {}): Unit = stoppable { stop ->
        inner.refresh(photos.inner, heard(onProgress), stop)
    }

    /** The same for Java, on the calling thread. */
    fun refreshBlocking(photos: Photos): Unit = inner.refresh(photos.inner, null, null)

    override fun close() = inner.destroy()

    companion object {
        /**
         * Extracts features of every photo, from [ttaViews] views each: 1, 2 (with its mirror image) or 8 (both
         * at four sizes); 0 is 2 where the weights were fitted to an album. What was seen is kept in [store],
         * where there is one: extraction continues there after a stop or the death of the app. The features of
         * [beside] stand beside those of [weights]. Canceling the coroutine ends it within a few photos.
         */
        suspend fun over(
            photos: Photos,
            weights: Weights,
            threads: Int = 0,
            ttaViews: Int = 0,
            store: File? = null,
            beside: Weights? = null,
            onProgress: (Progress) -> Unit = {},
        ): Search = stoppable { stop ->
            make(photos, weights, SearchSettings(threads, ttaViews, store?.path), beside, heard(onProgress), stop)
        }

        /** The same for Java, on the calling thread. */
        @JvmStatic
        @JvmOverloads
        fun overBlocking(
            photos: Photos,
            weights: Weights,
            threads: Int = 0,
            ttaViews: Int = 0,
            store: File? = null,
            beside: Weights? = null,
        ): Search = make(photos, weights, SearchSettings(threads, ttaViews, store?.path), beside, null, null)

        private fun make(
            photos: Photos,
            weights: Weights,
            settings: SearchSettings,
            beside: Weights?,
            listener: Listener?,
            stop: Stop?,
        ) = Search(
            io.seedling.bridge.Search(weights.inner, photos.inner, settings, beside?.inner, listener, stop),
        )
    }
}
