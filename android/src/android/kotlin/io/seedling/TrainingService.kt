package io.seedling

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context
import android.os.Build
import java.io.File
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/**
 * Trains at night, in the slices that Android's JobScheduler grants while the device is charging and nobody
 * uses it. An app derives its own from it, says in [open] what to train, and names it in its manifest:
 *
 *     <service android:name=".MyTraining" android:permission="android.permission.BIND_JOB_SERVICE"
 *         android:exported="false" />
 *
 * The process may be killed at any moment; the next slice continues from the last checkpoint.
 */
abstract class TrainingService : JobService() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private var slice: Job? = null

    /**
     * Opens the session, its weights and photos, anew for every slice: grants may have been taken back. Its
     * folder lies in [storage].
     */
    protected abstract suspend fun open(): Session

    /** Where what outlives a slice is kept: the app's private files. */
    protected open val storage: File get() = File(filesDir, "seedling")

    /** What the governor asks. */
    protected open val sensors: Sensors? by lazy { DeviceSensors(this) }

    /** What the governor allows. */
    protected open val rules: Rules get() = usualRules()

    /** Free bytes below which nothing is begun. */
    protected open val leastFree: Long get() = 200_000_000

    /** Called on a background thread when a slice has ended by itself; [more] where others have to follow. */
    protected open fun ended(more: Boolean) {}

    /** Tells the system that no more time is needed. */
    protected open fun finish(parameters: JobParameters, again: Boolean) = jobFinished(parameters, again)

    final override fun onStartJob(parameters: JobParameters): Boolean {
        // Whatever the slice before left running has the same session.
        val before = slice
        slice = scope.launch {
            before?.join()
            val more = SliceRunner(storage, sensors, rules, leastFree, ::open).run()
            ended(more)
            finish(parameters, more)
        }
        return true
    }

    /** The slice is over: what was trained is saved within a micro-batch. */
    final override fun onStopJob(parameters: JobParameters): Boolean {
        val reason = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) stopReason(parameters.stopReason) else "no reason is told"
        slice?.cancel(CancellationException("stopped by the system: $reason"))
        return true
    }

    override fun onDestroy() {
        scope.cancel("the service was destroyed")
        super.onDestroy()
    }

    companion object {
        /**
         * Asks for slices of [service] until its run is done. To be called whenever there is something to
         * learn; asking again changes nothing. Returns whether the system has taken it.
         */
        @JvmStatic
        fun schedule(context: Context, service: Class<out TrainingService>, job: Int): Boolean =
            scheduler(context).schedule(request(ComponentName(context, service), job)) == JobScheduler.RESULT_SUCCESS

        /** Takes the request back, and ends a slice that is in progress. */
        @JvmStatic
        fun cancel(context: Context, job: Int) = scheduler(context).cancel(job)

        internal fun request(service: ComponentName, job: Int): JobInfo = JobInfo.Builder(job, service)
            .setRequiresCharging(true)
            .setRequiresDeviceIdle(true)
            .setRequiresBatteryNotLow(true)
            .setRequiresStorageNotLow(true)
            .build()

        private fun scheduler(context: Context) =
            context.getSystemService(Context.JOB_SCHEDULER_SERVICE) as JobScheduler

        /** Why the system ends a slice, in words. */
        internal fun stopReason(reason: Int): String = when (reason) {
            JobParameters.STOP_REASON_CANCELLED_BY_APP -> "the app took the request back"
            JobParameters.STOP_REASON_PREEMPT -> "something more urgent"
            JobParameters.STOP_REASON_TIMEOUT -> "the time was over"
            JobParameters.STOP_REASON_DEVICE_STATE -> "the device needs its strength"
            JobParameters.STOP_REASON_CONSTRAINT_BATTERY_NOT_LOW -> "the battery is low"
            JobParameters.STOP_REASON_CONSTRAINT_CHARGING -> "it is not being charged"
            JobParameters.STOP_REASON_CONSTRAINT_DEVICE_IDLE -> "someone uses the device"
            JobParameters.STOP_REASON_CONSTRAINT_STORAGE_NOT_LOW -> "storage is low"
            JobParameters.STOP_REASON_QUOTA -> "the app's share is used up"
            JobParameters.STOP_REASON_BACKGROUND_RESTRICTION -> "the app may not work in the background"
            JobParameters.STOP_REASON_APP_STANDBY -> "the app is not used"
            JobParameters.STOP_REASON_USER -> "the person stopped it"
            JobParameters.STOP_REASON_SYSTEM_PROCESSING -> "the system is busy"
            else -> "reason $reason"
        }
    }
}
