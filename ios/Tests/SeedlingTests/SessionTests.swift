import Foundation
import Seedling
import XCTest

/// Real training on real photos, small enough for a test.
final class SessionTests: XCTestCase {
    static let project = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    static let shipped = project.appendingPathComponent("models/mobilenet_v3_small.safetensors")
    static let settings = Settings(memoryMb: 300, epochs: 4, imageSize: 32, threads: 2, seed: 5)
    static let longer = Settings(memoryMb: 300, epochs: 20, imageSize: 64, threads: 2, seed: 5)

    private let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("seedling-\(UUID().uuidString)")

    override func setUpWithError() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    private func at(_ name: String) -> URL { folder.appendingPathComponent(name) }

    private func photos() throws -> Photos {
        let photos = Photos()
        for file in TestPhotos.files { try photos.add(file, name: file.lastPathComponent) }
        return photos
    }

    private func session(_ name: String, _ settings: Settings = settings) throws -> Session {
        try Session(folder: at(name), weights: .openOwn(Self.shipped), photos: photos(), settings: settings)
    }

    private func weights(_ name: String) throws -> Data {
        try Data(contentsOf: at(name).appendingPathComponent("weights.safetensors"))
    }

    /// What a run leaves that nothing disturbs; computed once for all tests.
    private func undisturbed() async throws -> Data {
        if let known = Self.once.value { return known }
        let session = try session("undisturbed")
        let outcome = try await session.train()
        XCTAssertEqual(outcome, .done)
        try await session.close()
        let found = try weights("undisturbed")
        Self.once.value = found
        return found
    }

    /// Tests of a class run one after another.
    private final class Once: @unchecked Sendable {
        var value: Data?
    }

    private static let once = Once()

    private func refused(
        _ expected: String, file: StaticString = #filePath, line: UInt = #line, _ work: () async throws -> Void
    ) async {
        do {
            try await work()
            XCTFail("not refused", file: file, line: line)
        } catch {
            XCTAssertTrue("\(error)".hasPrefix(expected), "\(error)", file: file, line: line)
        }
    }

    func testTrainsWithProgressVerdictAndSearch() async throws {
        let session = try session("run")
        XCTAssertNil(try session.verdict())
        var heard: [Seedling.Progress] = []
        for try await progress in session.progress() { heard.append(progress) }
        XCTAssertTrue(heard.contains { $0.stage == .training && $0.loss!.isFinite }, "\(heard)")
        let verdict = try XCTUnwrap(session.verdict())
        XCTAssertEqual(verdict.accepted, verdict.interpolation > 0)
        XCTAssertTrue(verdict.sentence.contains("40 photos"), verdict.sentence)
        try session.export(to: at("out.safetensors"))
        XCTAssertEqual(try weights("run"), try Data(contentsOf: at("out.safetensors")))
        XCTAssertLessThanOrEqual(try session.resources().predictedMemoryMb, 300)

        let search = try await Search.over(photos(), with: .openOwn(at("out.safetensors")))
        let example = TestPhotos.files[7]
        let like = search.like(example.lastPathComponent, count: 3)
        XCTAssertEqual(like.count, 3)
        XCTAssertFalse(like.contains { $0.name == example.lastPathComponent })
        let same = try await search.like(encoded: Data(contentsOf: example), count: 1)
        XCTAssertEqual(same.map(\.name), [example.lastPathComponent])
        XCTAssertEqual(search.embeddings().count, 40)

        // Only what is the session's own goes.
        let other = at("run").appendingPathComponent("of-the-app.txt")
        try Data("stays".utf8).write(to: other)
        try session.discard()
        XCTAssertNil(try session.verdict())
        let left = try FileManager.default.contentsOfDirectory(atPath: at("run").path)
        XCTAssertEqual(left, ["of-the-app.txt"])
        try await session.close()
    }

    func testTheClosedFormAndItsIndexAreMadeInSlices() async throws {
        let closed = Settings(memoryMb: 300, epochs: 0, imageSize: 32, threads: 2)
        let open = {
            try Session(folder: self.at("closed"), weights: .openOwn(Self.shipped), photos: self.photos(), settings: closed)
        }
        // One part of the work a life.
        var lives = 0
        while true {
            let session = try open()
            let more = try await session.step()
            try await session.close()
            lives += 1
            if !more || lives == 50 { break }
        }
        XCTAssertGreaterThan(lives, 1)
        let session = try open()
        let verdict = try XCTUnwrap(session.verdict())
        XCTAssertTrue(verdict.closedForm && !verdict.accepted, verdict.sentence)
        try session.export(to: at("closed.safetensors"))
        try await session.close()

        let weights = try Weights.openOwn(at("closed.safetensors"))
        let store = at("album.index")
        let search = try await Search.over(photos(), with: weights, store: store)
        let all = search.embeddings()
        XCTAssertEqual(all.count, 40)
        let again = try await Search.over(photos(), with: weights, store: store)
        XCTAssertEqual(again.embeddings(), all)
        // A photo that is gone is not found any more.
        let fewer = Photos()
        for file in TestPhotos.files.dropFirst() { try fewer.add(file, name: file.lastPathComponent) }
        try await search.refresh(fewer)
        XCTAssertEqual(search.embeddings().count, 39)
        XCTAssertTrue(search.like(TestPhotos.files[0].lastPathComponent, count: 3).isEmpty)
        let both = try await Search.over(photos(), with: weights, ttaViews: 2, beside: .openOwn(Self.shipped))
        XCTAssertEqual(both.embeddings().values.first?.count, 2048)
        await refused("Settings") { _ = try await Search.over(self.photos(), with: weights, ttaViews: 3) }
    }

    func testEvaluatesWithAndWithoutClasses() async throws {
        let photos = try photos()
        let weights = try Weights.openOwn(Self.shipped)
        let without = try await evaluate(photos, with: weights)
        XCTAssertEqual(without.photos, 40)
        XCTAssertNil(without.bestNn)
        XCTAssertGreaterThan(try XCTUnwrap(without.instanceDiscrimination), 0)
        for (index, file) in TestPhotos.files.enumerated() {
            try photos.label(file.lastPathComponent, className: "class \(index % 2)")
        }
        let with = try await evaluate(photos, with: weights)
        XCTAssertTrue((0...100).contains(try XCTUnwrap(with.bestNn)))
        for figure in [with.precisionAt10, with.meanAveragePrecision, with.oneShot, with.fiveShot, with.purity] {
            XCTAssertTrue((0...100).contains(try XCTUnwrap(figure)))
        }
        XCTAssertEqual(without.uniformity, with.uniformity)
        await refused("Photos") { try photos.label("none", className: "class") }
    }

    func testSearchesAndEvaluationsAreCancelled() async throws {
        let weights = try Weights.openOwn(Self.shipped)
        let photos = try photos()
        let works: [@Sendable (@escaping @Sendable () -> Void) async throws -> Void] = [
            { progressed in _ = try await Search.over(photos, with: weights) { _ in progressed() } },
            { progressed in _ = try await evaluate(photos, with: weights) { _ in progressed() } },
        ]
        for work in works {
            let (begun, begin) = AsyncStream.makeStream(of: Void.self)
            let task = Task { try await work { begin.yield() } }
            var beginning = begun.makeAsyncIterator()
            await beginning.next()
            task.cancel()
            await refused("CancellationError") { try await task.value }
        }
    }

    func testAnAppCanHaveItsOwnLoop() async throws {
        let first = try session("run")
        let governor = Governor()
        let charging = Readings(
            seconds: nil, heat: 0.3, battery: 0.8, charging: true, lowPower: false, memoryMb: nil)
        XCTAssertEqual(governor.decide(charging), .run)
        var parts = 0
        while try await first.step() {
            parts += 1
            // Left in the middle, as by a process that ends.
            if parts == 2 { break }
        }
        let resources = try first.resources()
        XCTAssertTrue(resources.storedBytes > 0 && resources.seconds > 0)
        XCTAssertTrue((50...300).contains(resources.predictedMemoryMb), "\(resources)")
        try await first.close()
        let second = try session("run")
        while try await second.step() { parts += 1 }
        try await second.close()
        XCTAssertGreaterThan(parts, 4)
        let expected = try await undisturbed()
        XCTAssertEqual(expected, try weights("run"))
        let unplugged = Readings(
            seconds: nil, heat: 0.3, battery: 0.8, charging: false, lowPower: false, memoryMb: nil)
        XCTAssertEqual(Governor().decide(unplugged), .stop(reason: .notCharging))
    }

    func testPixelsAsLargeAsAPhonesAreTaken() async throws {
        let photos = Photos()
        let pixels = Data(count: 4032 * 3024 * 4)
        let start = Date()
        try photos.add(name: "camera", width: 4032, height: 3024, rgba: pixels)
        print("12 megapixels are kept after \(Int(Date().timeIntervalSince(start) * 1000)) ms")
        XCTAssertEqual(photos.count, 1)
        await refused("Photos") { try photos.add(name: "cut", width: 4032, height: 3025, rgba: pixels) }
        await refused("Photos") { try photos.add(name: "none", width: -1, height: 3025, rgba: pixels) }
    }

    func testPausesResumesAndCancelsWithTheSameBits() async throws {
        let first = try session("run")
        let paused = try await first.train { progress in
            if progress.stage == .training { first.pause() }
        }
        XCTAssertEqual(paused, .paused)
        // Another object, as another process would have; canceled in the middle.
        try await first.close()
        let again = try session("run")
        let task = Task { try await again.train() }
        try await Task.sleep(nanoseconds: 700_000_000)
        task.cancel()
        _ = await task.result
        let outcome = try await again.train()
        XCTAssertEqual(outcome, .done)
        try await again.close()
        let expected = try await undisturbed()
        XCTAssertEqual(expected, try weights("run"))
    }

    func testLeavingTheStreamPauses() async throws {
        let session = try session("run", Self.longer)
        for try await progress in session.progress() where progress.stage == .training { break }
        // Busy until it has stopped, which it does soon.
        try await session.close()
        XCTAssertTrue(FileManager.default.fileExists(atPath: at("run/checkpoint.safetensors").path))
    }

    func testListenersAndSensorsThatThrowEndNothing() async throws {
        struct Thrown: Error {}
        final class Broken: Sensors {
            func read() throws -> Readings { throw Thrown() }
        }
        let session = try session("run")
        var rules = Rules.usual
        rules.chargingOnly = false
        let outcome = try await session.train(
            sensors: Broken(), rules: rules, onProgress: { _ in throw Thrown() }, onWarning: { _ in throw Thrown() })
        XCTAssertEqual(outcome, .done)
        try await session.close()
        let expected = try await undisturbed()
        XCTAssertEqual(expected, try weights("run"))
    }

    func testTheGovernorStops() async throws {
        final class Unplugged: Sensors {
            func read() -> Readings {
                Readings(seconds: nil, heat: nil, battery: nil, charging: false, lowPower: nil, memoryMb: nil)
            }
        }
        let session = try session("run")
        let outcome = try await session.train(sensors: Unplugged())
        XCTAssertEqual(outcome, .stopped(reason: .notCharging))
        try await session.close()
    }

    func testBadPhotosAreSkippedAndTooFewAreRefused() async throws {
        let photos = try photos().add(name: "garbage", encoded: Data([1, 2, 3]))
            .add(URL(fileURLWithPath: "/nowhere/x.jpg"))
        await refused("Photos") { try photos.add(name: "garbage", encoded: Data()) }
        await refused("Photos") { try photos.add(name: "p", width: 3, height: 3, rgba: Data(count: 35)) }
        try photos.add(name: "p", width: 3, height: 3, rgba: Data(repeating: 100, count: 36))
        XCTAssertEqual(photos.count, 43)
        let session = try Session(
            folder: at("run"), weights: .openOwn(Self.shipped), photos: photos, settings: Self.settings)
        let outcome = try await session.train()
        XCTAssertEqual(outcome, .done)
        try await session.close()
        let search = try await Search.over(photos, with: .openOwn(Self.shipped))
        XCTAssertEqual(search.unreadable, 2)
        let few = try Session(folder: at("few"), weights: .openOwn(Self.shipped), photos: Photos())
        await refused("") { _ = try await few.train() }
        var tiny = Self.settings
        tiny.memoryMb = 10
        await refused("Settings") { _ = try self.session("tiny", tiny) }
        XCTAssertFalse(FileManager.default.fileExists(atPath: at("tiny").path))
        await refused("Weights") { _ = try Weights.openOwn(Self.project.appendingPathComponent("Cargo.toml")) }
        await refused("Untrusted") {
            _ = try Weights.open(Self.shipped, keys: [String(repeating: "0", count: 64)], storage: self.folder)
        }
    }

    func testTwoAtOnceAndUseAfterClose() async throws {
        let expected = try await undisturbed()
        let (one, two) = (try session("1"), try session("2"))
        async let first = one.train()
        async let second = two.train()
        let outcomes = try await [first, second]
        XCTAssertEqual(outcomes, [.done, .done])
        XCTAssertEqual(expected, try weights("1"))
        XCTAssertEqual(expected, try weights("2"))
        let third = try session("3")
        try await third.close()
        try await third.close()
        await refused("Closed") { _ = try await third.train() }
    }

    /// Killed with SIGKILL at random moments, again and again, in processes of its own.
    func testKilledAnywhereNothingIsLost() async throws {
        var random = SystemRandomNumberGenerator()
        let products = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        var kills = 0
        while true {
            let child = Process()
            child.executableURL = products.appendingPathComponent("SeedlingChild")
            child.arguments = [at("run").path, Self.shipped.path] + TestPhotos.files.map(\.path)
            try child.run()
            let milliseconds = kills < 6 ? Int.random(in: 800...2600, using: &random) : 120_000
            let until = Date().addingTimeInterval(Double(milliseconds) / 1000)
            while child.isRunning && Date() < until { usleep(5000) }
            if !child.isRunning {
                XCTAssertEqual(child.terminationReason, .exit)
                XCTAssertEqual(child.terminationStatus, 0)
                break
            }
            kill(child.processIdentifier, SIGKILL)
            child.waitUntilExit()
            XCTAssertLessThan(kills, 6, "the last one was to end by itself")
            kills += 1
        }
        print("killed \(kills) times")
        XCTAssertGreaterThan(kills, 0)
        let same = try session("same", Self.longer)
        let outcome = try await same.train()
        XCTAssertEqual(outcome, .done)
        try await same.close()
        XCTAssertEqual(try weights("same"), try weights("run"))
    }
}
