package io.seedling.sample

import android.view.View
import android.widget.ProgressBar
import io.seedling.bridge.Outcome
import java.util.Locale

/** 2. Learning, with its progress. */
fun adaptScreen(activity: MainActivity): View = with(activity) {
    val bar = ProgressBar(this, null, android.R.attr.progressBarStyleHorizontal)
    val line = text("Takes some minutes. It can be left at any moment, and continues at night while charging.")
    val begin = button(if (isBusy) "Pause" else "Adapt") {
        if (isBusy) {
            pause()
            return@button
        }
        NightTraining.cancel(this)
        perform {
            val outcome = store.open().use { session ->
                session.train { progress ->
                    onScreen {
                        bar.max = progress.total.toInt()
                        bar.progress = progress.done.toInt()
                        val loss = progress.loss?.let { String.format(Locale.ROOT, ", loss %.3f", it) }.orEmpty()
                        say("${progress.stage}: ${progress.done} of ${progress.total}$loss")
                    }
                }
            }
            if (outcome == Outcome.Done) "Done: see what it has learned." else "Stopped: $outcome"
        }
    }
    column(line, begin, bar)
}
