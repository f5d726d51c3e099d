package io.seedling

import io.seedling.bridge.SeedlingException
import io.seedling.bridge.Slices
import java.io.File
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
    private val leastFree: Long = io.seedling.bridge.leastFree(),
    private val open: suspend () -> Session,
) {
    /**
     * Trains until the run is done, the coroutine is canceled because the slice is over, or the governor
     * stops it. What was trained is saved by then, and [SliceLog] says how it ended. Returns whether more
     * slices are needed.
     */
    suspend fun run(): Boolean {
        storage.mkdirs()
        val slices = Slices(storage.path)
        return try {
            slices.start(storage.usableSpace, leastFree)
            slices.ended(open().use { it.train(sensors, rules) })
        } catch (over: CancellationException) {
            slices.paused(over.message ?: "the time granted was over")
            throw over
        } catch (failed: Exception) {
            slices.failed(failed.message ?: "$failed", failed is SeedlingException.Storage)
        }
    }
}
