import Foundation

/// Forty photos to train on, in a fixed order.
enum TestPhotos {
    static let files: [URL] = {
        let data = ProcessInfo.processInfo.environment["SEEDLING_DATA"] ?? "../../shared/data"
        let real = URL(fileURLWithPath: data).appendingPathComponent("albums/flowers")
        let found = FileManager.default.enumerator(at: real, includingPropertiesForKeys: [.isRegularFileKey])
        let files = (found?.allObjects as? [URL] ?? [])
            .filter { (try? $0.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile) == true }
            .sorted { $0.path < $1.path }
        if !files.isEmpty {
            return stride(from: 0, to: files.count, by: 7).prefix(40).map { files[$0] }
        }
        print("\(real.path) is missing (set SEEDLING_DATA): training on drawn pictures instead")
        return try! drawn(in: FileManager.default.temporaryDirectory.appendingPathComponent("seedling-album"))
    }()

    /// Four kinds of pictures: stripes and tiles, coarse and fine, in colours of their own.
    private static func drawn(in folder: URL) throws -> [URL] {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return try (0..<40).map { index in
            let size = index % 2 == 0 ? 8 : 24
            let file = folder.appendingPathComponent("\(index).bmp")
            try bitmap(width: 96, height: 80) { x, y in
                let on = index % 4 < 2 ? (x / size) % 2 == 0 : (x / size + y / size) % 2 == 0
                let colour = UInt8(truncatingIfNeeded: 40 + index * 53)
                return on ? (colour, 255 - colour, UInt8(x)) : (UInt8(y), colour / 2, 200)
            }.write(to: file)
            return file
        }
    }

    /// A BMP of 24 bits a pixel. Rows of a multiple of four pixels need no padding.
    private static func bitmap(
        width: Int, height: Int, pixel: (Int, Int) -> (UInt8, UInt8, UInt8)
    ) -> Data {
        func bytes(_ value: Int, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
        var data = Data("BM".utf8)
        let fields = [
            (54 + width * height * 3, 4), (0, 4), (54, 4), (40, 4), (width, 4), (height, 4), (1, 2), (24, 2),
            (0, 4), (width * height * 3, 4), (2835, 4), (2835, 4), (0, 4), (0, 4),
        ]
        fields.forEach { data.append(contentsOf: bytes($0.0, $0.1)) }
        for y in 0..<height {
            for x in 0..<width {
                let (red, green, blue) = pixel(x, y)
                data.append(contentsOf: [blue, green, red])
            }
        }
        return data
    }
}
