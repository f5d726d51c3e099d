package io.seedling.sample

import android.content.Intent
import android.os.Build
import android.text.format.Formatter
import android.view.View
import io.seedling.SliceLog
import io.seedling.benchmark

/** 5. What is stored, how to delete it, what became of the nights, and how fast the device is. */
fun storedScreen(activity: MainActivity): View = with(activity) {
    val files = store.stored().joinToString("\n") { file ->
        "${file.relativeTo(store.folder)}: ${Formatter.formatFileSize(this, file.length())}"
    }
    val nights = SliceLog(store.folder).entries().takeLast(10).joinToString("\n") { "${it.ended} ${it.detail}" }
    column(
        text(files.ifEmpty { "Nothing is stored." }),
        button("Delete everything") {
            perform {
                NightTraining.cancel(this)
                store.delete()
                "Deleted"
            }
        },
        text("The last slices:\n$nights"),
        button("Measure this device") {
            perform {
                val device = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}"
                val json = benchmark(device)
                onScreen {
                    val share = Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_TEXT, json)
                    startActivity(Intent.createChooser(share, "Share the figures"))
                }
                "Measured"
            }
        },
    )
}
