package io.seedling

import io.seedling.bridge.Outcome
import io.seedling.bridge.SeedlingException
import java.io.File
import java.util.Locale
import kotlinx.coroutines.CancellationException

/**
 * Trains in the slices that the system grants, across launches of the app. [open] opens the session, its
 * photos and weights anew for every slice: grants may have changed. Where fewer than [leastFree] bytes are
 * free (two checkpoints and the weights), nothing is begun.
 */
class SliceRunner @JvmOverloads constructor(
    private val storage: File,
    private val sensors: Sensors? = null,
    private val rules: Rules = usualRules(),
    private val leastFree: Long = 200_000_000,
    private val open: suspend () -> Session,
) {
    /**
     * Trains until the run is done, the coroutine is cancelled because the slice is over, or the governor
     * stops it. What was trained is saved by then, and [SliceLog] says how it ended. Returns whether more
     * slices are needed.
     */
    suspend fun run(): Boolean {
        storage.mkdirs()
        val log = SliceLog(storage)
        log.begin()
        return try {
            val outcome = train()
            log.add(name(outcome), "")
            outcome != Outcome.Done
        } catch (over: CancellationException) {
            log.add("paused", over.message ?: "the time granted was over")
            throw over
        } catch (failed: Exception) {
            log.add("failed", failed.message ?: "$failed")
            // A full disk may have room tomorrow; photos and weights don't mend themselves.
            failed is SeedlingException.Storage
        }
    }

    private suspend fun train(): Outcome {
        val free = storage.usableSpace
        if (free < leastFree) {
            throw SeedlingException.Storage("${free / 1_000_000} MB are free, ${leastFree / 1_000_000} are needed")
        }
        return open().use { it.train(sensors, rules) }
    }

    private fun name(outcome: Outcome): String = when (outcome) {
        is Outcome.Done -> "done"
        is Outcome.Paused -> "paused"
        is Outcome.Stopped -> outcome.reason.name.lowercase(Locale.ROOT)
    }
}
