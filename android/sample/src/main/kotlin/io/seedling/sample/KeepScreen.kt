package io.seedling.sample

import android.view.View
import io.seedling.Album

/** 4. The verdict, and what to do with the result. */
fun keepScreen(activity: MainActivity): View = with(activity) {
    column(
        button("What is the verdict?") {
            perform { store.open().use { it.verdict()?.sentence ?: "There is no result yet." } }
        },
        button("Keep") {
            perform {
                store.open().use { it.export(store.adapted) }
                "Kept: ${store.adapted.name}"
            }
        },
        button("Discard") {
            perform {
                store.open().use { it.discard() }
                Album(store.folder).forget()
                "Discarded"
            }
        },
    )
}
