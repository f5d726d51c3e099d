import SeedlingBridge

/// How far work is: its stage, steps taken or photos processed, and out of how many. Where Foundation is
/// imported too, write `Seedling.Progress`.
public typealias Progress = SeedlingBridge.Progress

/// What a session is doing.
public typealias Stage = SeedlingBridge.Stage
