import SeedlingBridge

/// Why a call did not do what it was asked to. Each case is something to act on; its `reason` is one
/// line for a log.
public typealias SeedlingError = SeedlingBridge.SeedlingError

/// `work`, with the errors that an app can act on.
func typed<T>(_ work: () throws -> T) throws(SeedlingError) -> T {
    do {
        return try work()
    } catch let error as SeedlingError {
        throw error
    } catch {
        throw .Training(reason: "\(error)")
    }
}
