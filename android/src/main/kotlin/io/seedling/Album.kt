package io.seedling

import java.io.File

/**
 * Which photos a run is over, remembered in [storage] from its first slice to its last. Between two slices a
 * photo may be deleted or its grant taken back: then it is skipped, and the run continues with the others,
 * which a list that had changed would not let it.
 */
class Album(storage: File) {
    private val slices = io.seedling.bridge.Slices(storage.path)

    /** The names it was begun with; those of [current] where it has not begun. */
    fun names(current: () -> List<String>): List<String> =
        slices.names() ?: current().also(slices::remember)

    /**
     * Its photos, in their order. [add] hands one over by its name, and returns whether it could; one that
     * is gone keeps its place.
     */
    fun photos(current: () -> List<String>, add: (Photos, String) -> Boolean): Photos {
        val photos = Photos()
        for (name in names(current)) {
            if (!add(photos, name)) photos.add(File("/photo/that/is/gone"), name)
        }
        return photos
    }

    /** Forgets it: the next run is over the photos there are then. */
    fun forget() = slices.forget()
}
