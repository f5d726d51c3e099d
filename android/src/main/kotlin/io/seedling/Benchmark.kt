@file:JvmName("Benchmark")

package io.seedling

/**
 * Measures a step of training for every network, size of views and budget of memory, [seconds] each: some
 * minutes. Returns JSON to be shared, which `seedling bench --table FILE` prints as a table; [device] is its
 * title. Canceling the coroutine ends it within a step.
 */
suspend fun benchmark(device: String, seconds: Double = 5.0, threads: Int = 0): String =
    stoppable { stop -> io.seedling.bridge.benchmark(device, seconds, threads, stop) }
