import SeedlingBridge

/// Whether the adapted weights are kept, with its figures and a sentence for the person whose photos
/// they are.
public typealias Verdict = SeedlingBridge.Verdict
