// SPDX-License-Identifier: GPL-2.0
/*
 * fb_standin - stands in for nvidia_drm with fbdev=1: a framebuffer of the
 * first NVIDIA GPU, for the kernel's text console.
 *
 * nvidia_drm makes one only where a display is connected, which no machine
 * without a GPU has. Here it is 1.2 MB of plain memory. As with nvidia_drm
 * the console holds the module that made the framebuffer, that module holds
 * nvidia (by a symbol, see gdr_standin), and the framebuffer's device in sysfs
 * is the GPU, whose driver is nvidia.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fb.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/vmalloc.h>

#define WIDTH	640
#define HEIGHT	480
#define SIZE	(WIDTH * HEIGHT * 4)

/* nv-p2p.h; only its address is taken. */
extern int nvidia_p2p_get_pages(void);

static void *volatile uses;
static struct pci_dev *gpu;
static struct fb_info *info;
static u32 palette[16];

static int setcolreg(u_int regno, u_int red, u_int green, u_int blue, u_int transp,
		     struct fb_info *info)
{
	if (regno >= ARRAY_SIZE(palette))
		return -EINVAL;
	palette[regno] = (red >> 8) << 16 | (green >> 8) << 8 | blue >> 8;
	return 0;
}

static const struct fb_ops ops = {
	.owner = THIS_MODULE,
	.fb_read = fb_sys_read,
	.fb_write = fb_sys_write,
	.fb_setcolreg = setcolreg,
	.fb_fillrect = sys_fillrect,
	.fb_copyarea = sys_copyarea,
	.fb_imageblit = sys_imageblit,
};

static int __init fb_standin_init(void)
{
	int err = -ENOMEM;

	uses = nvidia_p2p_get_pages;
	gpu = pci_get_device(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID, NULL);
	if (!gpu)
		return -ENODEV;
	info = framebuffer_alloc(0, &gpu->dev);
	if (!info)
		goto put;
	info->screen_buffer = vzalloc(SIZE);
	if (!info->screen_buffer)
		goto release;
	info->screen_size = SIZE;
	info->fbops = &ops;
	info->flags = FBINFO_VIRTFB;
	info->pseudo_palette = palette;
	strscpy(info->fix.id, "fb_standin", sizeof(info->fix.id));
	info->fix.type = FB_TYPE_PACKED_PIXELS;
	info->fix.visual = FB_VISUAL_TRUECOLOR;
	info->fix.line_length = WIDTH * 4;
	info->fix.smem_len = SIZE;
	info->var.xres = info->var.xres_virtual = WIDTH;
	info->var.yres = info->var.yres_virtual = HEIGHT;
	info->var.bits_per_pixel = 32;
	info->var.red = (struct fb_bitfield){ .offset = 16, .length = 8 };
	info->var.green = (struct fb_bitfield){ .offset = 8, .length = 8 };
	info->var.blue = (struct fb_bitfield){ .offset = 0, .length = 8 };
	err = register_framebuffer(info);
	if (err)
		goto free;
	pr_info("framebuffer %d of %s\n", info->node, pci_name(gpu));
	return 0;
free:
	vfree(info->screen_buffer);
release:
	framebuffer_release(info);
put:
	pci_dev_put(gpu);
	return err;
}

static void __exit fb_standin_exit(void)
{
	unregister_framebuffer(info);
	vfree(info->screen_buffer);
	framebuffer_release(info);
	pci_dev_put(gpu);
}

module_init(fb_standin_init);
module_exit(fb_standin_exit);
MODULE_DESCRIPTION("A framebuffer of the first NVIDIA GPU");
MODULE_LICENSE("GPL");
