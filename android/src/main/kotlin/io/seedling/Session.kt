package io.seedling

import io.seedling.bridge.Outcome
import java.io.Closeable
import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.withContext

/** How to train. What is not named here is `seedling adapt`'s. */
typealias Settings = io.seedling.bridge.Settings

/** What a session takes. */
typealias Resources = io.seedling.bridge.Resources

/** Hears how a session is getting on, where closures can't: in Java. */
typealias Listener = io.seedling.bridge.Listener

/**
 * One run over one list of photos, in a folder of its own. It may be left at any moment, by a pause,
 * a canceled coroutine or the death of the app, and continues where its last checkpoint was.
 */
class Session private constructor(private val inner: io.seedling.bridge.Session) : Closeable {
    /**
     * Trains until all is done, [pause] is called, or the governor stops it. Canceling the coroutine
     * pauses it: it ends within a micro-batch, with what was trained saved. [onProgress] is called on
     * the training thread, at most ten times a second; what it throws is dropped.
     */
    suspend fun train(
        sensors: Sensors? = null,
        rules: Rules = usualRules(),
        onWarning: (String) -> Unit = {},
        onProgress: (Progress) -> Unit = {},
    ): Outcome {
        val turn = inner.turn()
        return untilCancelled(::pause) { inner.run(turn, heard(onProgress, onWarning), sensors, rules) }
    }

    /** The same as a flow of progress, which trains while it is collected; slow collectors miss some. */
    fun progress(sensors: Sensors? = null, rules: Rules = usualRules()): Flow<Progress> =
        channelFlow { train(sensors, rules) { trySend(it) } }.buffer(Channel.CONFLATED)

    /** The same for Java, on the calling thread. */
    @JvmOverloads
    fun trainBlocking(listener: Listener? = null, sensors: Sensors? = null, rules: Rules = usualRules()): Outcome =
        inner.run(inner.turn(), listener, sensors, rules)

    /**
     * Does the next part only: a measurement, one step, or the end; says whether there is more. For an app
     * with a loop of its own.
     */
    suspend fun step(onProgress: (Progress) -> Unit = {}): Boolean {
        val turn = inner.turn()
        return untilCancelled(::pause) { inner.step(turn, heard(onProgress)) }
    }

    /** Ends the run that is in progress within a micro-batch, with what was trained saved. */
    fun pause() = inner.pause()

    /** The verdict, once the session is done. */
    fun verdict(): Verdict? = inner.verdict()

    /** Copies the weights that the verdict has kept to [file]. */
    fun export(file: File) = inner.export(file.path)

    /** What training takes, and has taken. */
    fun resources(): Resources = inner.resources()

    /** Removes everything the session has written; the next run begins anew. */
    fun discard() = inner.discard()

    /** Lets go of memory and folder; what was saved stays. A run that is in progress is paused first. */
    override fun close() = inner.shut()

    companion object {
        /**
         * A session in [folder]; one that was begun there before will be resumed. What it takes is
         * predicted first: some tenths of a second.
         */
        @JvmStatic
        @JvmOverloads
        fun open(folder: File, weights: Weights, photos: Photos, settings: Settings = Settings()): Session =
            Session(io.seedling.bridge.Session.open(folder.path, weights.inner, photos.inner, settings))
    }
}
