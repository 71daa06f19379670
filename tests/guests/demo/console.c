#include "console.h"

#include <stdarg.h>

/* 16550 UART: COM1 and its registers at divisor latch access bit 0 and 1 */
enum {
    COM1 = 0x3F8,
    THR = COM1 + 0,
    IER = COM1 + 1,
    FCR = COM1 + 2,
    LCR = COM1 + 3,
    MCR = COM1 + 4,
    LSR = COM1 + 5,
    LSR_THRE = 1 << 5,
    LSR_TEMT = 1 << 6,
};
enum { isa_debug_exit = 0xF4, bochs_shutdown = 0x8900 };

void console_open(void) {
    out8(IER, 0x00);
    out8(LCR, 0x80); /* DLAB */
    out8(THR, 0x01); /* divisor 1: 115200 */
    out8(IER, 0x00);
    out8(LCR, 0x03); /* 8N1 */
    out8(FCR, 0xC7);
    out8(MCR, 0x03);
}

static void put(char c) {
    while (!(in8(LSR) & LSR_THRE)) {}
    out8(THR, (u8)c);
}

static u32 put_string(const char* text) {
    u32 length = 0;
    for (; text[length]; length++) put(text[length]);
    return length;
}

static u32 put_number(u64 value, u32 base) {
    char digits[24];
    u32 start = sizeof digits - 1;
    digits[start] = 0;
    do {
        digits[--start] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    if (base == 16) {
        digits[--start] = 'x';
        digits[--start] = '0';
    }
    return put_string(digits + start);
}

void print(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        u32 width = 0, length = 0;
        for (format++; *format >= '0' && *format <= '9'; format++) width = width * 10 + (u32)(*format - '0');
        if (*format == 's')
            length = put_string(va_arg(arguments, const char*));
        else if (*format == 'd')
            length = put_number(va_arg(arguments, u32), 10);
        else if (*format == 'x')
            length = put_number(va_arg(arguments, u64), 16);
        for (; length < width; length++) put(' ');
    }
    va_end(arguments);
}

_Noreturn void end_of_run(u32 value) {
    while (!(in8(LSR) & LSR_TEMT)) {}
    out32(isa_debug_exit, value);
    for (const char* c = "Shutdown"; *c; c++) out8(bochs_shutdown, (u8)*c);
    for (;;) __asm__ volatile("cli; hlt");
}
