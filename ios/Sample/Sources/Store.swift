import Foundation
import Seedling

/// Where the sample keeps what it keeps, and how its session is opened: the same from the screen and at night.
enum Store {
    static let folder: URL = {
        let support = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)[0]
        var folder = support.appendingPathComponent("seedling")
        try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        // Made of photos, and made again at any time: not for backups.
        var values = URLResourceValues()
        values.isExcludedFromBackup = true
        try? folder.setResourceValues(values)
        return folder
    }()
    static let session = folder.appendingPathComponent("session")
    static let adapted = folder.appendingPathComponent("adapted.safetensors")

    /// The weights that came with the app, vouched for.
    static func base() throws -> Weights {
        let file = Bundle.main.url(forResource: "base", withExtension: "safetensors", subdirectory: "Weights")!
        let key = Bundle.main.url(forResource: "base.key", withExtension: "pub", subdirectory: "Weights")!
        let keys = [try String(contentsOf: key, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)]
        return try Weights.open(file, keys: keys, storage: folder)
    }

    /// The photos of the run: those it was begun with, or the newest that the app may see now.
    static func photos() async throws -> Photos {
        let library = PhotoLibrary()
        return try await Album(storage: folder).photos(current: { library.names() }) { photos, name in
            try await library.add(name, to: photos)
        }
    }

    static func open() async throws -> Session {
        try Session(folder: session, weights: base(), photos: await photos())
    }

    static func runner(sensors: DeviceSensors) -> SliceRunner {
        SliceRunner(storage: folder, sensors: sensors) { try await open() }
    }

    /// Everything that is stored, by name and size.
    static func stored() -> [(name: String, bytes: Int)] {
        let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: [.fileSizeKey])
        return (files?.allObjects as? [URL] ?? []).compactMap { file in
            guard let bytes = try? file.resourceValues(forKeys: [.fileSizeKey]).fileSize else { return nil }
            return (file.path.replacingOccurrences(of: folder.path + "/", with: ""), bytes)
        }
    }

    static func delete() throws {
        for file in try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil) {
            try FileManager.default.removeItem(at: file)
        }
    }
}
