package io.seedling

import io.seedling.bridge.Decision
import java.io.Closeable

/** What is allowed: memory, time at a time, heat, battery. */
typealias Rules = io.seedling.bridge.Rules

/** What the sensors say at one moment. Whatever is not known stays null. */
typealias Readings = io.seedling.bridge.Readings

/** Reads the device's sensors, before every step. What it throws counts as knowing nothing. */
typealias Sensors = io.seedling.bridge.Sensors

/** Why training has to stop. */
typealias Reason = io.seedling.bridge.Reason

/** The rules that suit most apps: 300 MB, nine minutes at a time, only while charging. */
fun usualRules(): Rules = io.seedling.bridge.usualRules()

/**
 * Whether training may continue now, for an app that has its own loop ([Session.step]); [Session.train] has one
 * of its own. A decision to stop stands: whoever starts again begins with a new one.
 */
class Governor @JvmOverloads constructor(rules: Rules = usualRules()) : Closeable {
    private val inner = io.seedling.bridge.Governor(rules)

    /** What to do, seeing this. To be asked before the first step and after every one. */
    fun decide(readings: Readings): Decision = inner.decide(readings)

    override fun close() = inner.destroy()
}
