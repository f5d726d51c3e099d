package io.seedling

import java.io.File
import java.lang.reflect.Modifier
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The public classes of this library, and those that Rust gives it, against the table of names. */
class NamesTest {
    private class Noun(val name: String, val rust: String, val kotlin: String) {
        val rustMembers = mutableSetOf<String>()
        val kotlinMembers = mutableSetOf<String>()
    }

    private val nouns: List<Noun> = buildList {
        for (line in File("../mobile-ffi/names.tsv").readLines().filterNot { it.startsWith("#") }) {
            val cells = line.split("\t")
            if (cells[0].isEmpty()) {
                last().rustMembers += names(cells[1])
                last().kotlinMembers += names(cells[2])
            } else {
                add(Noun(cells[0], cells[1], cells[2]))
            }
        }
    }

    private fun names(cell: String) = if (cell == "-") emptyList() else cell.split(", ")

    private fun find(name: String): Class<*>? =
        runCatching { Class.forName(name, false, javaClass.classLoader) }.getOrNull()

    /** Where Rust's type comes out; its errors are called exceptions. */
    private fun bridge(noun: Noun): Class<*>? =
        find("io.seedling.bridge.${noun.name}") ?: find("io.seedling.bridge.${noun.name.removeSuffix("Error")}Exception")

    private fun own(noun: Noun): Class<*>? =
        find("io.seedling.${noun.name}") ?: find("io.seedling.${noun.kotlin.removeSuffix(".kt")}$${noun.name}")

    /** Public functions and properties, of the companion too. */
    private fun members(type: Class<*>): Set<String> {
        val companion = type.declaredClasses.filter { it.simpleName == "Companion" }
        return (listOf(type) + companion).flatMap { it.declaredMethods.toList() }
            .filter { Modifier.isPublic(it.modifiers) && !it.isSynthetic && '$' !in it.name }
            .map { if (it.parameterCount == 0) it.name.removePrefix("get").replaceFirstChar(Char::lowercase) else it.name }
            .map { it.substringBefore('-') }
            .toSet() - setOf("close", "equals", "hashCode", "toString")
    }

    private fun camel(name: String) = name.split("_").let { words ->
        words[0] + words.drop(1).joinToString("") { it.replaceFirstChar(Char::uppercase) }
    }

    @Test
    fun typesAreThere() {
        for (noun in nouns) {
            if (noun.rust.endsWith(".rs")) assertTrue(bridge(noun) != null, "Rust: ${noun.name}")
            if (noun.kotlin.endsWith(".kt")) assertTrue((own(noun) ?: bridge(noun)) != null, "Kotlin: ${noun.name}")
        }
    }

    @Test
    fun nothingPublicIsMissing() {
        // For the library alone.
        val own = setOf("Bitmaps")
        val folder = File(Session::class.java.protectionDomain.codeSource.location.toURI()).resolve("io/seedling")
        val classes = folder.listFiles { file -> file.name.endsWith(".class") && '$' !in file.name }.orEmpty()
        assertTrue(classes.isNotEmpty(), "$folder")
        val declared = classes.map { it.name.removeSuffix(".class") }.filter {
            // Others hold the functions of a file.
            Class.forName("io.seedling.$it", false, javaClass.classLoader).getAnnotation(Metadata::class.java).kind == 1
        }
        assertEquals(emptySet<String>(), declared.toSet() - own - nouns.map { it.name }.toSet())
    }

    @Test
    fun membersAreThoseOfTheTable() {
        for (noun in nouns.filter { it.rustMembers.isNotEmpty() }) {
            val rust = bridge(noun)!!
            // Some stand beside a type in Rust.
            val there = members(rust) + members(find("io.seedling.bridge.Seedling_mobileKt")!!) + "new"
            for (name in noun.rustMembers) assertTrue(camel(name) in there, "Rust: ${noun.name}.$name of $there")
            val own = own(noun)
            if (own == null) {
                // An alias: what it can do stands beside it in its file.
                val beside = members(find("io.seedling.${noun.kotlin.removeSuffix(".kt")}Kt")!!)
                assertTrue(beside.containsAll(noun.kotlinMembers), "Kotlin: ${noun.name} of $beside")
            } else {
                assertEquals(noun.kotlinMembers, members(own), "Kotlin: ${noun.name}")
            }
        }
    }
}
