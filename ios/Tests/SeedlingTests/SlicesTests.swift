import Foundation
import Seedling
import XCTest

/// Training in the slices of time that a system grants, and takes back.
final class SlicesTests: XCTestCase {
    /// Time that is over when the test says so.
    private final class Granted: Slice, @unchecked Sendable {
        private let lock = NSLock()
        private var handler: (@Sendable () -> Void)?
        private var expired = false
        private(set) var completed: [Bool] = []

        func whenExpired(_ handler: @escaping @Sendable () -> Void) {
            lock.withLock { self.handler = handler }
            if lock.withLock({ expired }) { handler() }
        }

        func complete(success: Bool) { lock.withLock { completed.append(success) } }

        func expire() {
            lock.withLock { expired = true }
            lock.withLock { handler }?()
        }
    }

    private let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("seedling-\(UUID().uuidString)")
    private let anyPower: Rules = {
        var rules = Rules.usual
        rules.chargingOnly = false
        return rules
    }()

    override func setUpWithError() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    /// Copies of the photos, which may be deleted.
    private func album() throws -> [URL] {
        let photos = folder.appendingPathComponent("photos")
        try FileManager.default.createDirectory(at: photos, withIntermediateDirectories: true)
        return try TestPhotos.files.map { file in
            let copy = photos.appendingPathComponent(file.lastPathComponent)
            try FileManager.default.copyItem(at: file, to: copy)
            return copy
        }
    }

    private func runner(
        _ files: [URL], sensors: (any Sensors)? = nil, rules: Rules? = nil, leastFree: Int64 = 0
    ) -> SliceRunner {
        let storage = folder
        return SliceRunner(storage: storage, sensors: sensors, rules: rules ?? anyPower, leastFree: leastFree) {
            let photos = try await Album(storage: storage).photos(current: { files.map(\.path) }) {
                guard FileManager.default.fileExists(atPath: $1) else { return false }
                try $0.add(URL(fileURLWithPath: $1))
                return true
            }
            return try Session(
                folder: storage.appendingPathComponent("session"), weights: .openOwn(SessionTests.shipped),
                photos: photos, settings: SessionTests.longer)
        }
    }

    private func ends() -> [String] { SliceLog(storage: folder).entries().map(\.ended) }

    func testSlicesThatExpireAddUpAlsoWithoutAPhoto() async throws {
        let files = try album()
        var slices = 0
        while true {
            let slice = Granted()
            // The first is over before it has begun, others somewhere in the middle.
            if slices == 0 { slice.expire() }
            let timer = Task { [slices] in
                try await Task.sleep(nanoseconds: slices < 4 ? 900_000_000 : 120_000_000_000)
                slice.expire()
            }
            let more = await runner(files).run(slice)
            timer.cancel()
            XCTAssertEqual(slice.completed, [true])
            slices += 1
            if slices == 2 { try FileManager.default.removeItem(at: files[3]) }
            if !more { break }
            XCTAssertLessThan(slices, 6)
        }
        XCTAssertGreaterThan(slices, 2)
        XCTAssertEqual(ends(), Array(repeating: "paused", count: slices - 1) + ["done"])
        try Album(storage: folder).forget()
        try Album(storage: folder).forget()
    }

    func testASliceThatWasKilledIsLoggedByTheNext() async throws {
        // What a process leaves that was killed in a slice.
        try Data().write(to: folder.appendingPathComponent("slice.begun"))
        _ = await runner([]).run(Granted())
        XCTAssertEqual(ends(), ["killed", "failed"])
        _ = await runner([]).run(Granted())
        XCTAssertEqual(ends(), ["killed", "failed", "failed"])
    }

    func testWhyASliceEndedIsLogged() async throws {
        final class Hot: Sensors {
            func read() -> Readings {
                Readings(seconds: 0, heat: 0.99, battery: 1, charging: true, lowPower: false, memoryMb: 1)
            }
        }
        let files = try album()
        let hot = Granted()
        let afterHeat = await runner(files, sensors: Hot()).run(hot)
        let full = Granted()
        let afterFull = await runner(files, leastFree: .max).run(full)
        let empty = Granted()
        try Album(storage: folder).forget()
        let afterEmpty = await runner([]).run(empty)
        XCTAssertEqual([afterHeat, afterFull, afterEmpty], [true, true, false])
        XCTAssertEqual(ends(), ["heat", "failed", "failed"])
        XCTAssertEqual([hot, full, empty].map(\.completed), [[true], [false], [false]])
        let details = SliceLog(storage: folder).entries().map(\.detail)
        XCTAssertTrue(details[1].contains("are free"), details[1])
    }
}
