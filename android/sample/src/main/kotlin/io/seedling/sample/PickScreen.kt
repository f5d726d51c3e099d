package io.seedling.sample

import android.view.View
import io.seedling.PhotoLibrary.Access

/** 1. Which photos. */
fun pickScreen(activity: MainActivity): View = with(activity) {
    val access = when (store.library.access) {
        Access.ALL -> "All photos may be used."
        Access.CHOSEN -> "Photos that you have chosen may be used."
        Access.NONE -> "Only photos that you pick may be used."
    }
    column(
        text("The model learns from your photos, on this device. They never leave it, and are not changed."),
        button("Pick photos") { pickPhotos() },
        button("Let it see the library") { askForPhotos() },
        text("$access ${store.names().size} photos now."),
    )
}
