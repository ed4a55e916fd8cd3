// SPDX-License-Identifier: GPL-2.0
/*
 * fakegpu - a PCI host bridge of its own with up to eight NVIDIA GPUs on it
 * that are nothing but configuration space and one register.
 *
 * NVIDIA's kernel modules probe such a device, take its BARs and its
 * interrupt, read PMC_BOOT_42 to learn which chip it is, and are content until
 * somebody opens /dev/nvidiaN (which needs firmware and a real chip). That is
 * all a test of loading, holding and unloading the driver needs.
 *
 * Where the address space comes from:
 *
 * BAR0 must be backed by memory, for that one register. It lies in RAM that
 * the kernel was told not to use: boot with mem=1792M on a machine that has
 * more, and it starts at bar0_base, 0x70000000. (memmap=64M$0x70000000 keeps
 * the RAM too, but the kernel assigns no BAR inside a range that e820 calls
 * reserved, so a device removed would not come back on a rescan.)
 *
 * BAR1 and BAR3 lie where nothing answers: they read as ones and drop what is
 * written. The driver maps them, and touches them only with a running GPU.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/io.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <asm/pci.h>

#define MAX_GPUS	8
#define CFG_SIZE	4096
#define REGS_SIZE	0x1000			/* the part of BAR0 that is mapped here */
#define BAR0_SIZE	0x01000000ULL		/* 16 MiB, 32 bits, not prefetchable */
#define BAR1_SIZE	0x10000000ULL		/* 256 MiB, 64 bits, prefetchable */
#define BAR3_SIZE	0x02000000ULL		/* 32 MiB, 64 bits, prefetchable */
/* BAR3 follows BAR1; both are naturally aligned with this distance. */
#define PREF_STRIDE	(2 * BAR1_SIZE)

#define PMC_BOOT_0	0x000
#define PMC_BOOT_1	0x004
#define PMC_BOOT_42	0xa00

/* Where the capabilities lie on a real T4. */
#define CAP_PM		0x60
#define CAP_MSI		0x68
#define CAP_EXP		0x78

static int gpus = 1;
module_param(gpus, int, 0444);
MODULE_PARM_DESC(gpus, "how many GPUs, 1 to 8 (default 1)");

static ulong bar0_base = 0x70000000;
module_param(bar0_base, ulong, 0444);
MODULE_PARM_DESC(bar0_base, "start of the RAM kept from the kernel with mem= (default 0x70000000)");

static ulong bar1_base = 0x2000000000UL;
module_param(bar1_base, ulong, 0444);
MODULE_PARM_DESC(bar1_base, "physical address where nothing answers (default 128 GiB)");

static int domain = 1;
module_param(domain, int, 0444);
MODULE_PARM_DESC(domain, "PCI domain of the bridge (default 1)");

static int busnr;
module_param(busnr, int, 0444);
MODULE_PARM_DESC(busnr, "bus number; a free one is needed with domain=0 (default 0)");

static uint device = 0x1eb8;
module_param(device, uint, 0444);
MODULE_PARM_DESC(device, "PCI device id (default 0x1eb8, a Tesla T4)");

static uint subsystem = 0x12a2;
module_param(subsystem, uint, 0444);
MODULE_PARM_DESC(subsystem, "PCI subsystem id (default 0x12a2)");

static uint class = 0x030200;
module_param(class, uint, 0444);
MODULE_PARM_DESC(class, "PCI class (default 0x030200, 3D controller)");

static uint boot0 = 0x164000a1;
module_param(boot0, uint, 0444);
MODULE_PARM_DESC(boot0, "PMC_BOOT_0 (default 0x164000a1, TU104)");

static uint boot42 = 0x164000a1;
module_param(boot42, uint, 0444);
MODULE_PARM_DESC(boot42, "PMC_BOOT_42, the chip: 0x1b2000a1 is one that 535 and 550 refuse; with boot0, 0xffffffff is a GPU that fell off the bus");

static int irq_line = 11;
module_param(irq_line, int, 0444);
MODULE_PARM_DESC(irq_line, "legacy interrupt line; without one the driver's probe fails (default 11)");

struct fake_gpu {
	u8 cfg[CFG_SIZE];
	u8 writable[CFG_SIZE];		/* the bits of cfg that a write changes */
	void __iomem *regs;
};

static struct fake_gpu *fake_gpus[MAX_GPUS];
static struct pci_host_bridge *bridge;
static struct pci_sysdata sysdata;
static struct resource bus_window = {
	.name = "fakegpu bus",
	.flags = IORESOURCE_BUS,
};
static struct resource mmio_window = {
	.name = "fakegpu mmio",
	.flags = IORESOURCE_MEM,
};
static struct resource pref_window = {
	.name = "fakegpu pref",
	.flags = IORESOURCE_MEM | IORESOURCE_PREFETCH | IORESOURCE_MEM_64,
};

/*
 * echo "GPU OFFSET VALUE" (hex) > /sys/module/fakegpu/parameters/poke
 * changes a register at run time: a GPU can fall off the bus later.
 */
static int poke_set(const char *val, const struct kernel_param *kp)
{
	unsigned int n, offset, value;

	if (sscanf(val, "%x %x %x", &n, &offset, &value) != 3 ||
	    n >= MAX_GPUS || offset >= REGS_SIZE || offset % 4)
		return -EINVAL;
	if (!fake_gpus[n])
		return -ENODEV;
	writel(value, fake_gpus[n]->regs + offset);
	return 0;
}

static const struct kernel_param_ops poke_ops = { .set = poke_set };
module_param_cb(poke, &poke_ops, NULL, 0200);
MODULE_PARM_DESC(poke, "write \"GPU OFFSET VALUE\" (hex) to set a register of BAR0");

static void put16(u8 *p, u16 v)
{
	p[0] = v;
	p[1] = v >> 8;
}

static void put32(u8 *p, u32 v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

/* The GPU behind an access to configuration space; NULL: no such device. */
static struct fake_gpu *find(struct pci_bus *bus, unsigned int devfn, int where, int size)
{
	if (bus->number != bus_window.start || PCI_FUNC(devfn) ||
	    PCI_SLOT(devfn) >= MAX_GPUS || where < 0 || where + size > CFG_SIZE)
		return NULL;
	return fake_gpus[PCI_SLOT(devfn)];
}

static int cfg_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *val)
{
	struct fake_gpu *gpu = find(bus, devfn, where, size);
	int i;

	if (!gpu) {
		*val = ~0;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	*val = 0;
	for (i = 0; i < size; i++)
		*val |= (u32)gpu->cfg[where + i] << (8 * i);
	return PCIBIOS_SUCCESSFUL;
}

static int cfg_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 val)
{
	struct fake_gpu *gpu = find(bus, devfn, where, size);
	int i;

	if (!gpu)
		return PCIBIOS_DEVICE_NOT_FOUND;
	for (i = 0; i < size; i++) {
		u8 mask = gpu->writable[where + i];
		u8 byte = val >> (8 * i);

		gpu->cfg[where + i] = (gpu->cfg[where + i] & ~mask) | (byte & mask);
	}
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops fakegpu_ops = {
	.read = cfg_read,
	.write = cfg_write,
};

/* The bits below the size are fixed: that is how the kernel sizes a BAR. */
static void set_bar(struct fake_gpu *gpu, int bar, u64 addr, u64 size, u32 flags)
{
	int at = PCI_BASE_ADDRESS_0 + 4 * bar;

	put32(gpu->cfg + at, (u32)addr | flags);
	put32(gpu->writable + at, (u32)~(size - 1) & PCI_BASE_ADDRESS_MEM_MASK);
	if (flags & PCI_BASE_ADDRESS_MEM_TYPE_64) {
		put32(gpu->cfg + at + 4, addr >> 32);
		put32(gpu->writable + at + 4, ~(size - 1) >> 32);
	}
}

static void set_header(struct fake_gpu *gpu)
{
	u8 *cfg = gpu->cfg, *writable = gpu->writable;

	put16(cfg + PCI_VENDOR_ID, PCI_VENDOR_ID_NVIDIA);
	put16(cfg + PCI_DEVICE_ID, device);
	put16(cfg + PCI_COMMAND, PCI_COMMAND_MEMORY);
	put16(writable + PCI_COMMAND,
	      PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
	      PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	put16(cfg + PCI_STATUS, PCI_STATUS_CAP_LIST);
	cfg[PCI_REVISION_ID] = 0xa1;
	cfg[PCI_CLASS_PROG] = class;
	put16(cfg + PCI_CLASS_DEVICE, class >> 8);
	writable[PCI_CACHE_LINE_SIZE] = 0xff;
	put16(cfg + PCI_SUBSYSTEM_VENDOR_ID, PCI_VENDOR_ID_NVIDIA);
	put16(cfg + PCI_SUBSYSTEM_ID, subsystem);
	writable[PCI_INTERRUPT_LINE] = 0xff;
	if (irq_line) {
		cfg[PCI_INTERRUPT_PIN] = 1;
		cfg[PCI_INTERRUPT_LINE] = irq_line;
	}
	cfg[PCI_CAPABILITY_LIST] = CAP_PM;
}

/* Power management, MSI, PCI Express, in this order. */
static void set_capabilities(struct fake_gpu *gpu)
{
	u8 *cfg = gpu->cfg, *writable = gpu->writable;

	cfg[CAP_PM] = PCI_CAP_ID_PM;
	cfg[CAP_PM + PCI_CAP_LIST_NEXT] = CAP_MSI;
	put16(cfg + CAP_PM + PCI_PM_PMC, 3);
	put16(cfg + CAP_PM + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
	put16(writable + CAP_PM + PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK);

	cfg[CAP_MSI] = PCI_CAP_ID_MSI;
	cfg[CAP_MSI + PCI_CAP_LIST_NEXT] = CAP_EXP;
	put16(cfg + CAP_MSI + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT);
	put16(writable + CAP_MSI + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
	put32(writable + CAP_MSI + PCI_MSI_ADDRESS_LO, ~3u);
	put32(writable + CAP_MSI + PCI_MSI_ADDRESS_HI, ~0u);
	put16(writable + CAP_MSI + PCI_MSI_DATA_64, 0xffff);

	cfg[CAP_EXP] = PCI_CAP_ID_EXP;
	put16(cfg + CAP_EXP + PCI_EXP_FLAGS, 2);	/* version 2, endpoint */
	/* No function level reset: nothing here would survive one. */
	put32(cfg + CAP_EXP + PCI_EXP_DEVCAP, 0x00008de1 & ~PCI_EXP_DEVCAP_FLR);
	put16(cfg + CAP_EXP + PCI_EXP_DEVCTL, 0x2810);
	put16(writable + CAP_EXP + PCI_EXP_DEVCTL, 0x7fff);
	put32(cfg + CAP_EXP + PCI_EXP_LNKCAP, 0x00406103);	/* 8 GT/s, x16 */
	put16(writable + CAP_EXP + PCI_EXP_LNKCTL, 0x0bff);
	put16(cfg + CAP_EXP + PCI_EXP_LNKSTA, 0x1103);
}

static int make_gpu(int n)
{
	const u32 pref = PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH;
	u64 bar0 = bar0_base + n * BAR0_SIZE;
	u64 bar1 = bar1_base + n * PREF_STRIDE;
	struct fake_gpu *gpu;

	gpu = kzalloc(sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;
	gpu->regs = ioremap(bar0, REGS_SIZE);
	if (!gpu->regs) {
		kfree(gpu);
		return -ENOMEM;
	}
	memset_io(gpu->regs, 0, REGS_SIZE);
	writel(boot0, gpu->regs + PMC_BOOT_0);
	writel(boot42, gpu->regs + PMC_BOOT_42);
	/* A GPU that fell off the bus answers ones everywhere. */
	writel(boot0 == ~0u ? ~0u : 0, gpu->regs + PMC_BOOT_1);

	set_header(gpu);
	set_capabilities(gpu);
	set_bar(gpu, 0, bar0, BAR0_SIZE, 0);
	set_bar(gpu, 1, bar1, BAR1_SIZE, pref);
	set_bar(gpu, 3, bar1 + BAR1_SIZE, BAR3_SIZE, pref);
	fake_gpus[n] = gpu;
	return 0;
}

static void free_gpus(void)
{
	int i;

	for (i = 0; i < MAX_GPUS; i++) {
		if (!fake_gpus[i])
			continue;
		iounmap(fake_gpus[i]->regs);
		kfree(fake_gpus[i]);
		fake_gpus[i] = NULL;
	}
}

static void release_windows(void)
{
	if (mmio_window.parent)
		release_resource(&mmio_window);
	if (pref_window.parent)
		release_resource(&pref_window);
}

static int add_bridge(void)
{
	int rc;

	bridge = pci_alloc_host_bridge(0);
	if (!bridge)
		return -ENOMEM;

	bus_window.start = busnr;
	bus_window.end = busnr;
	mmio_window.start = bar0_base;
	mmio_window.end = bar0_base + gpus * BAR0_SIZE - 1;
	pref_window.start = bar1_base;
	pref_window.end = bar1_base + gpus * PREF_STRIDE - 1;

	sysdata.domain = domain;
	sysdata.node = NUMA_NO_NODE;
	bridge->sysdata = &sysdata;
	bridge->ops = &fakegpu_ops;
	bridge->busnr = busnr;
	pci_add_resource(&bridge->windows, &mmio_window);
	pci_add_resource(&bridge->windows, &pref_window);
	pci_add_resource(&bridge->windows, &bus_window);

	rc = insert_resource(&iomem_resource, &mmio_window);
	if (rc) {
		pr_err("%pR is taken: boot with mem= to keep it free\n", &mmio_window);
		goto free;
	}
	rc = insert_resource(&iomem_resource, &pref_window);
	if (rc) {
		pr_err("%pR is taken: choose another bar1_base\n", &pref_window);
		goto free;
	}

	pci_lock_rescan_remove();
	rc = pci_scan_root_bus_bridge(bridge);
	if (!rc) {
		pci_bus_claim_resources(bridge->bus);
		pci_bus_add_devices(bridge->bus);
	}
	pci_unlock_rescan_remove();
	if (rc) {
		pr_err("bus scan failed: %d\n", rc);
		goto free;
	}
	return 0;

free:
	pci_free_host_bridge(bridge);
	release_windows();
	return rc;
}

static int __init fakegpu_init(void)
{
	int i, rc;

	if (gpus < 1 || gpus > MAX_GPUS)
		return -EINVAL;
	for (i = 0; i < gpus; i++) {
		rc = make_gpu(i);
		if (rc)
			goto free;
	}
	rc = add_bridge();
	if (rc)
		goto free;
	pr_info("%d GPU(s) 10de:%04x in PCI domain %04x\n", gpus, device, domain);
	return 0;

free:
	free_gpus();
	return rc;
}

static void __exit fakegpu_exit(void)
{
	pci_lock_rescan_remove();
	pci_stop_root_bus(bridge->bus);
	pci_remove_root_bus(bridge->bus);
	pci_unlock_rescan_remove();
	release_windows();
	free_gpus();
}

module_init(fakegpu_init);
module_exit(fakegpu_exit);

MODULE_DESCRIPTION("PCI devices that NVIDIA's kernel modules take for GPUs");
MODULE_LICENSE("GPL");
