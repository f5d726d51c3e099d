package io.seedling.sample

import android.content.Context
import io.seedling.Session
import io.seedling.TrainingService

/** Learns at night, what the screen has begun. */
class NightTraining : TrainingService() {
    override suspend fun open(): Session = Store(this).open()

    companion object {
        private const val JOB = 1

        fun schedule(context: Context) = schedule(context, NightTraining::class.java, JOB)

        /** While the screen itself trains: a session is one process's, and one object's, at a time. */
        fun cancel(context: Context) = cancel(context, JOB)
    }
}
