package boot

// isPC reports whether the machine powers off only by ACPI.
const isPC = true
