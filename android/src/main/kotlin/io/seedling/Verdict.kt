package io.seedling

/** Whether the adapted weights are kept, with its figures and a sentence for the person whose photos they are. */
typealias Verdict = io.seedling.bridge.Verdict
