package boot

// isPC: a machine that powers off by ACPI and by nothing else.
const isPC = true
