package io.seedling

import io.seedling.bridge.Stop
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.withContext

/**
 * [work] on a background thread. The core knows nothing of coroutines: where this one is canceled, it
 * is asked to stop, and answers soon.
 */
internal suspend fun <T> stoppable(work: (Stop) -> T): T = Stop().use { stop ->
    untilCancelled({ stop.cancel() }) { work(stop) }
}

/** [work] on a background thread; [ask] is called where the coroutine is canceled meanwhile. */
internal suspend fun <T> untilCancelled(ask: () -> Unit, work: () -> T): T = coroutineScope {
    val running = async(Dispatchers.IO) { runCatching(work) }
    try {
        running.await().getOrThrow()
    } catch (canceled: CancellationException) {
        ask()
        withContext(NonCancellable) { running.join() }
        throw canceled
    }
}

/** A listener that calls [onProgress]. */
internal fun heard(onProgress: (Progress) -> Unit, onWarning: (String) -> Unit = {}): Listener =
    object : Listener {
        override fun progress(progress: Progress) = onProgress(progress)

        override fun warning(text: String) = onWarning(text)
    }
