package io.seedling

import java.awt.Color
import java.awt.image.BufferedImage
import java.io.File
import java.nio.file.Files
import java.util.Random
import javax.imageio.ImageIO

/** Forty photos to train on, in a fixed order. */
object TestPhotos {
    private val real = File(System.getenv("SEEDLING_DATA") ?: "../../shared/data", "albums/flowers")

    val files: List<File> by lazy {
        if (real.isDirectory) {
            Files.walk(real.toPath()).use { paths ->
                paths.filter(Files::isRegularFile).map { it.toFile() }.sorted().toList()
            }.filterIndexed { index, _ -> index % 7 == 0 }.take(40)
        } else {
            println("$real is missing (set SEEDLING_DATA): training on drawn pictures instead")
            drawn(File("target/album"))
        }
    }

    /** Four kinds of pictures: colored discs and squares, large and small. */
    private fun drawn(folder: File): List<File> {
        folder.mkdirs()
        val random = Random(1)
        return List(40) { index ->
            val image = BufferedImage(160, 120, BufferedImage.TYPE_INT_RGB)
            val graphics = image.createGraphics()
            repeat(12) {
                graphics.color = Color(random.nextInt(0x1000000))
                val size = if (index % 2 == 0) 20 else 60
                val (x, y) = random.nextInt(140) to random.nextInt(100)
                if (index % 4 < 2) graphics.fillOval(x, y, size, size) else graphics.fillRect(x, y, size, size)
            }
            graphics.dispose()
            File(folder, "%02d.png".format(index)).also { ImageIO.write(image, "png", it) }
        }
    }
}
