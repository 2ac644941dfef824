/* Runs classic BPF filters as seccomp(2) does, over many inputs at once; for tests only. */

#include <stdint.h>
#include <stddef.h>

struct filter { uint16_t code; uint8_t jt, jf; uint32_t k; };

/* What the kernel's checker refuses: -1, or the index of the first bad instruction. */
int check(const struct filter *program, int length)
{
	if (length < 1 || length > 4096)
		return 0;
	for (int at = 0; at < length; at++) {
		const struct filter *f = &program[at];
		int left = length - at - 1;
		switch (f->code) {
		case 0x20: if (f->k >= 64 || f->k & 3) return at; break;
		case 0x54: break;
		case 0x05: if (f->k >= (uint32_t)left) return at; break;
		case 0x15: case 0x25: case 0x35:
			if (f->jt >= left || f->jf >= left) return at;
			break;
		case 0x06: break;
		default: return at;
		}
	}
	return program[length - 1].code == 0x06 ? -1 : length - 1;
}

/* The verdict of a program that passed check(); word[i] is the 32-bit word at offset 4*i. */
static uint32_t verdict(const struct filter *program, const uint32_t word[16])
{
	uint32_t a = 0;
	for (const struct filter *f = program;; f++) {
		switch (f->code) {
		case 0x20: a = word[f->k / 4]; break;
		case 0x54: a &= f->k; break;
		case 0x05: f += f->k; break;
		case 0x15: f += a == f->k ? f->jt : f->jf; break;
		case 0x25: f += a > f->k ? f->jt : f->jf; break;
		case 0x35: f += a >= f->k ? f->jt : f->jf; break;
		case 0x06: return f->k;
		}
	}
}

/* out[i * vectors + j] = verdict of number i with arguments j; big: which half of an argument is first. */
void run(const struct filter *program, int big, uint32_t arch, const uint32_t *numbers, int count,
	 const uint64_t (*arguments)[6], int vectors, uint32_t *out)
{
	uint32_t word[16] = { 0, arch, 0x1234, 0x5678 };
	for (int i = 0; i < count; i++) {
		word[0] = numbers[i];
		for (int j = 0; j < vectors; j++) {
			for (int k = 0; k < 6; k++) {
				word[4 + 2 * k + !!big] = (uint32_t)arguments[j][k];
				word[4 + 2 * k + !big] = (uint32_t)(arguments[j][k] >> 32);
			}
			*out++ = verdict(program, word);
		}
	}
}
