@file:JvmName("Evaluate")

package io.seedling

/** Figures of some weights on some photos. What there are too few photos for is null. */
typealias Evaluation = io.seedling.bridge.Evaluation

/**
 * Measures [weights] on [photos]: how surely neighbors name a photo's class where [Photos.label] has told
 * all classes, and figures that need none. Canceling the coroutine ends it within a few photos.
 */
suspend fun evaluate(
    photos: Photos,
    weights: Weights,
    threads: Int = 0,
    onProgress: (Progress) -> Unit = {},
): Evaluation = stoppable { stop ->
    io.seedling.bridge.evaluate(weights.inner, photos.inner, threads, heard(onProgress), stop)
}

/** The same for Java, on the calling thread. */
@JvmOverloads
fun evaluateBlocking(photos: Photos, weights: Weights, threads: Int = 0): Evaluation =
    io.seedling.bridge.evaluate(weights.inner, photos.inner, threads, null, null)
