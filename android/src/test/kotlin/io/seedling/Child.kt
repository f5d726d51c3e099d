package io.seedling

import java.io.File

/** A process that trains in the folder it is given, to be killed. */
fun main(arguments: Array<String>) {
    val photos = Photos()
    TestPhotos.files.forEach { photos.add(it, it.name) }
    val weights = Weights.openOwn(SessionTest.shipped)
    Session.open(File(arguments[0]), weights, photos, SessionTest.longer).use { it.trainBlocking() }
}
