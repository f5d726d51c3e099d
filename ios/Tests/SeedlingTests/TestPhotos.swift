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

    /// Four kinds of pictures: colored tiles and discs, small and large, each picture with its own.
    private static func drawn(in folder: URL) throws -> [URL] {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var state: UInt64 = 1
        func random(_ below: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % below
        }
        return try (0..<40).map { index in
            let size = index % 2 == 0 ? 10 : 28
            let shapes = (0..<14).map { _ in
                (x: random(96), y: random(80), color: (UInt8(random(256)), UInt8(random(256)), UInt8(random(256))))
            }
            let file = folder.appendingPathComponent("\(index).bmp")
            try bitmap(width: 96, height: 80) { x, y in
                let hit = shapes.last { shape in
                    let (across, down) = (x - shape.x, y - shape.y)
                    return index % 4 < 2
                        ? abs(across) < size && abs(down) < size : across * across + down * down < size * size
                }
                return hit?.color ?? (0, 0, 0)
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
